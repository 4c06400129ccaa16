"""The server without a socket: what every front end calls."""
