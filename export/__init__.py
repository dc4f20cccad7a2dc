"""Checkpoint to bundle: split ONNX graphs, further precisions, and the proof that they agree."""
