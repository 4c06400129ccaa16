"""The lifetime of the server process: signals, the deadline of a shutdown, and a watchdog for the event loop.

Threads of their own handle these, so that they work even while the event loop is blocked.
"""
