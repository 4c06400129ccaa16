"""Speech recognition with Whisper: from sound to text with timestamps, as openai/whisper computes it."""
