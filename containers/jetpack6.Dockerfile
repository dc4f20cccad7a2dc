# motorVAE on a Jetson with JetPack 6.1 or 6.2 (L4T 36.4, TensorRT 10.3). On the Jetson, from the
# checkout's root:
#   docker build -f containers/jetpack6.Dockerfile -t motorvae:jetpack6 .
#   docker run --rm --runtime nvidia --ipc host --user "$(id -u):$(id -g)" --group-add video \
#       --group-add "$(getent group render | cut -d: -f3)" --device /dev/video0 -v "$PWD:/data" \
#       motorvae:jetpack6 stream 0
# Its Python is 3.10. The GPU belongs to the group render, which the image does not know by name.
ARG BASE=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-devel
FROM ${BASE}

# Ubuntu's OpenCV has GStreamer, which csi:// needs, and PyPI's has not.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        gstreamer1.0-plugins-base gstreamer1.0-plugins-good python3-opencv python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/motorvae
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY runtime runtime
COPY training training
COPY export export
COPY benchmarks benchmarks
# Ubuntu 22.04's OpenCV and TensorRT's module were built against NumPy 1.
RUN python3 -m venv --system-site-packages environment \
    && environment/bin/pip install --no-cache-dir -c constraints.txt \
        '.[cpu,export,bench,parquet,zmq,mcap,sign]' 'cuda-bindings>=12.6,<13' 'numpy<2' \
    && environment/bin/pip uninstall --yes opencv-python \
    && environment/bin/python -c 'import cv2, tensorrt'
ENV PATH=/opt/motorvae/environment/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=all

# No root: results belong to whoever starts it (--user), and a home for any of them holds caches.
RUN mkdir --mode=1777 /home/motorvae
ENV HOME=/home/motorvae
USER 10000:10000
WORKDIR /data
ENTRYPOINT ["motorvae"]
CMD ["doctor"]
