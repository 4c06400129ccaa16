"""CTranslate2's directories: model.bin, config.json, tokenizer.json."""
