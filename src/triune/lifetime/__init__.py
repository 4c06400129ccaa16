"""The lifetime of the server process: signals, the deadline of a shutdown, and a watchdog for the event loop.

All of them are threads that work even while the event loop is blocked.
"""
