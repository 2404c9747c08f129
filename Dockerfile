# Two images of the server:
#
#   docker build --target cpu --tag tessera:cpu .    any x86-64 machine, the bundled model inside
#   docker build --target gpu --tag tessera:gpu .    NVIDIA GPUs, on vLLM's own image of the same release
#
# Both run as a user without rights, on a read-only root file system if need be: what they write goes to /data (uploaded
# files), /cache (fetched models, compiled kernels) and /tmp. Give a container `--shm-size 1g`: media travel through
# shared memory, of which Docker's default of 64 MB is too little for one clip.

# What the lock names, which changes seldom, and the project, which changes often, are layers of their own.
FROM python:3.11-slim-bookworm AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/tessera/bin:$PATH
ARG TORCH=2.13.0+cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/tessera \
    && pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$TORCH"
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements/cpu.lock,target=/tmp/cpu.lock \
    --mount=type=bind,source=requirements/shared.lock,target=/tmp/shared.lock \
    pip install --no-deps --requirement /tmp/cpu.lock --requirement /tmp/shared.lock

FROM packages AS wheel
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,target=/src,rw \
    REQUIRE_KERNELS=1 pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel /src

# Once the M-RoPE is compiled, nothing needs torch's headers, its own tests, or the programs in `bin` but one: 190 MB.
FROM packages AS pruned
WORKDIR /opt/tessera/lib/python3.11/site-packages/torch
RUN rm -r include test \
    && find bin -type f ! -name torch_shm_manager -delete


FROM python:3.11-slim-bookworm AS cpu
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tessera" \
      org.opencontainers.image.description="Qwen2-VL behind the OpenAI API, on the CPU, with the bundled model" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
# tini is process 1 and buries what a killed engine leaves behind. A named volume takes over the owner of its folder.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /cache --no-create-home tessera \
    && install --directory --owner tessera --group tessera /cache /data
COPY --from=pruned /opt/tessera /opt/tessera
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    /opt/tessera/bin/pip install --no-cache-dir --no-deps --no-index /wheel/*.whl
COPY --chmod=755 docker/healthcheck.py /usr/local/bin/tessera-health
ENV PATH=/opt/tessera/bin:$PATH \
    HOME=/cache \
    TESSERA_HOST=0.0.0.0 \
    TESSERA_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME ["/cache", "/data"]
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s --retries=6 CMD ["tessera-health"]
ENTRYPOINT ["tini", "--", "tessera", "serve"]


FROM vllm/vllm-openai:v0.32.0 AS gpu
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tessera" \
      org.opencontainers.image.description="Qwen2-VL behind the OpenAI API, on NVIDIA GPUs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /cache --no-create-home tessera \
    && install --directory --owner tessera --group tessera /cache /data
# vLLM is there already; its version stands among the requirements so that another one is an error.
RUN --mount=type=bind,target=/src,rw \
    uv pip install --system --no-cache --requirement /src/requirements/cuda.txt '/src[shared]'
COPY --chmod=755 docker/healthcheck.py /usr/local/bin/tessera-health
ENV HOME=/cache \
    TESSERA_HOST=0.0.0.0 \
    TESSERA_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME ["/cache", "/data"]
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=1800s --retries=6 CMD ["tessera-health"]
ENTRYPOINT ["tini", "--", "tessera", "serve"]
