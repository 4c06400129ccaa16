"""GGUF, the file format of ggml: metadata and tensors in one file. Source: ggml's docs/gguf.md."""
