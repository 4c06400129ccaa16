"""Reads, decompresses and parses request bodies, and sends responses, for every front end: within the memory budget,
and off the event loop if the bodies are large.
"""
