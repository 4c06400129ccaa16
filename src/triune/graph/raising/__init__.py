"""Code for raising (writing Apple's programs as ONNX graphs) that ML Programs and Core AI programs share."""
