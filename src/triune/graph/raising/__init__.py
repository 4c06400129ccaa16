"""Shared by raising ML Programs and Core AI programs. Raising converts a program to an ONNX graph."""
