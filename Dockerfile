# The image that launch/gke names:
#
#   docker build --build-arg JAX=cuda13 --tag REGISTRY/selfpab-jax:cuda13 .
#
# JAX is cpu, cuda13, cuda12 (NVIDIA GPUs; the driver comes from the machine) or tpu.
FROM python:3.12-slim-bookworm

ARG JAX=cpu

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/selfpab-jax
COPY pyproject.toml README.md LICENSE ./
COPY selfpab_jax selfpab_jax
COPY convert convert
COPY configs configs

RUN case "$JAX" in \
      cpu) jax="jax" ;; \
      cuda12|cuda13|tpu) jax="jax[$JAX]" ;; \
      *) echo "JAX is $JAX; it must be cpu, cuda12, cuda13 or tpu" >&2; exit 1 ;; \
    esac \
    && pip install . "$jax" \
    && selfpab-jax --version

# As root, like most images for training: shared volumes usually belong to root. A pod's securityContext can change that.
WORKDIR /selfpab
CMD ["selfpab-jax", "--help"]
