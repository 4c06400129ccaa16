"""The server process's lifetime: signals, shutdown deadline, event loop watchdog. Threads that do not need the loop."""
