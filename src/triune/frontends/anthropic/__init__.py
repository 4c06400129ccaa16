"""Anthropic's HTTP API: messages, and the count of their tokens."""

from triune.frontends.anthropic.routes import anthropic_routes

__all__ = ["anthropic_routes"]
