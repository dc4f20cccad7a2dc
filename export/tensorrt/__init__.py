"""Building TensorRT engines, reading their precision back, and verifying them."""
