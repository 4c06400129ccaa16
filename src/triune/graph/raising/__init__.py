"""Writing ONNX graphs out of Apple's programs: what raising ML Programs and Core AI programs share."""
