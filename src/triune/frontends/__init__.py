"""Front ends: each one translates a network protocol to calls of `serving.Server`."""
