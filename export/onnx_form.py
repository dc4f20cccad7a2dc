"""The versions of ONNX that all our graphs are written in."""

from __future__ import annotations

OPSET = 20
"""The newest that TensorRT 10.3's parser and every current ONNX Runtime read."""
IR_VERSION = 10
"""What goes with it; ONNX Runtime 1.18 and later read it."""
