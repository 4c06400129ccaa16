"""The layout that Apple's Neural Engine likes, for graphs of transformers."""
