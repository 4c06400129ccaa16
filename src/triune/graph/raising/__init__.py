"""What raising (converting a program to an ONNX graph) shares between ML Programs and Core AI programs."""
