"""What the HTTP APIs for text share: reading fields, running a generation, and counting what it costs."""
