"""Directories in Hugging Face's form: config.json, safetensors, tokenizer.json."""
