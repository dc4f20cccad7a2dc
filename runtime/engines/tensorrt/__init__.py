"""TensorRT and TensorRT-RTX engines: finding, checking and running them."""
