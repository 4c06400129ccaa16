"""Speech: Whisper's way from sound to text with times, as openai/whisper describes it."""
