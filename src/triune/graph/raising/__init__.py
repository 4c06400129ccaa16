"""Raising writes Apple's programs as ONNX graphs; this is shared by ML Programs and Core AI programs."""
