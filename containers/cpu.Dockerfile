# motorVAE on a processor, x86-64 or arm64: stream, encode, doctor. From the checkout's root:
#   docker build -f containers/cpu.Dockerfile -t motorvae:cpu .
#   docker run --rm --user "$(id -u):$(id -g)" --group-add video -v "$PWD:/data" \
#       --device /dev/video0 motorvae:cpu stream 0
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

# OpenCV's wheel loads these two; the packages of the image are the user's to choose by BASE.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/motorvae
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY runtime runtime
COPY training training
COPY export export
COPY benchmarks benchmarks
RUN python3 -m venv environment \
    && environment/bin/pip install --no-cache-dir -c constraints.txt \
        '.[cpu,openvino,parquet,zmq,mcap,sign]'
ENV PATH=/opt/motorvae/environment/bin:$PATH

# No root: results belong to whoever starts it (--user), and a home for any of them holds caches.
RUN mkdir --mode=1777 /home/motorvae
ENV HOME=/home/motorvae
USER 10000:10000
WORKDIR /data
ENTRYPOINT ["motorvae"]
CMD ["doctor"]
