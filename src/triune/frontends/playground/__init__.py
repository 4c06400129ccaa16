"""The page at `/` of the HTTP port: a playground in the browser, and what it asks of the server beside the APIs."""

from triune.frontends.playground.routes import playground_routes

__all__ = ["playground_routes"]
