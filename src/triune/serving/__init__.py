"""The server without a socket."""
