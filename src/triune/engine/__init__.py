"""The transformer engine: generates text with decoders, and embeds or classifies texts with encoders."""
