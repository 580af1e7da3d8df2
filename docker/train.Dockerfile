# Prepares and trains, on a GPU where the host has NVIDIA's container toolkit, else on a CPU.
#
#   docker build -f docker/train.Dockerfile -t clickwise-train .
#   docker run --rm --gpus all -v "$PWD/work:/work" clickwise-train quickstart
#
# torch's wheels bring the CUDA libraries, so that the smallest of NVIDIA's images does.
FROM nvidia/cuda:12.8.1-base-ubuntu24.04

# gcc and Python's headers: Triton compiles the launchers of its kernels when they are first used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

COPY constraints.txt pyproject.toml README.md LICENSE /clickwise/
COPY src /clickwise/src
COPY recipes /clickwise/recipes
COPY data/kuairand_pure /clickwise/data/kuairand_pure
RUN python3 -m venv /opt/clickwise \
    && /opt/clickwise/bin/pip install --no-cache-dir -c /clickwise/constraints.txt '/clickwise[export]'

RUN useradd --uid 10001 --create-home clickwise && mkdir /work && chown clickwise /work
USER 10001
WORKDIR /work
ENTRYPOINT ["/opt/clickwise/bin/clickwise"]
CMD ["--help"]
