"""What OpenAI's and Anthropic's HTTP APIs share: reading fields, running a generation, and counting its tokens."""
