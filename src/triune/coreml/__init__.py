"""Core ML ML Programs: made from graphs, raised to graphs, and run on any system."""
