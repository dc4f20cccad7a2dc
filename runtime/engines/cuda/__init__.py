"""GPU memory, one stream and CUDA graphs, through pycuda or cuda-bindings."""
