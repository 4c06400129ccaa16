"""The Python API (`import triune`): models without a server, and conversions. The command line uses it, too."""
