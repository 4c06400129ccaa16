"""OpenAI's HTTP API: chats, completions, responses and embeddings."""

from triune.frontends.openai.routes import openai_routes

__all__ = ["openai_routes"]
