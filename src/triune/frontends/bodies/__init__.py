"""Bodies of requests and responses, for every front end: read, decompressed and parsed within the memory budget, off
the event loop if they are large.
"""
