"""Transformations of ONNX graphs, one a module."""
