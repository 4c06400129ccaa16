"""When each word of a transcript is said."""
