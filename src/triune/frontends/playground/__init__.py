"""The page at `/` of the HTTP port: a playground in the browser, and the endpoints that only this page uses."""

from triune.frontends.playground.routes import playground_routes

__all__ = ["playground_routes"]
