"""How the process ends, and what tells when its event loop is held: threads that need no loop."""
