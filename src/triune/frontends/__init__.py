"""What speaks to clients. Each front end translates one protocol to the serving room's words."""
