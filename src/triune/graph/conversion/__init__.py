"""What all conversions of an ONNX graph to Apple's programs share: options, preparation, shapes and constants,
errors.
"""
