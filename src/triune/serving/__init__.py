"""The server as all front ends see it, without network protocols."""
