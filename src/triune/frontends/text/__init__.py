"""Shared by the HTTP APIs for text: reading fields, running a generation, and counting its tokens."""
