# motorVAE on an NVIDIA GPU of a desktop or server, with TensorRT. From the checkout's root:
#   docker build -f containers/gpu.Dockerfile -t motorvae:gpu .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" motorvae:gpu \
#       export --model bundle --fp16
# The base brings Ubuntu 24.04, Python 3.12, CUDA 13 and TensorRT 10.13 with its Python module.
ARG BASE=nvcr.io/nvidia/tensorrt:25.08-py3
FROM ${BASE}

# OpenCV's wheel loads these two, and the base may lack venv.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0t64 python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/motorvae
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY runtime runtime
COPY training training
COPY export export
COPY benchmarks benchmarks
# The base's own TensorRT is seen, and none comes from an index; bench is for the doctor of the GPU.
RUN python3 -m venv --system-site-packages environment \
    && environment/bin/pip install --no-cache-dir -c constraints.txt \
        '.[gpu,export,bench,parquet,zmq,mcap,sign]' 'cuda-bindings>=13,<14' \
    && environment/bin/python -c 'import tensorrt'
ENV PATH=/opt/motorvae/environment/bin:$PATH \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video

# No root: results belong to whoever starts it (--user), and a home for any of them holds caches.
RUN mkdir --mode=1777 /home/motorvae
ENV HOME=/home/motorvae
USER 10000:10000
WORKDIR /data
ENTRYPOINT ["motorvae"]
CMD ["doctor"]
