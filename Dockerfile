# The sidecar. Build: docker build -t rmv-sidecar .
# Run:  docker run --read-only --cap-drop ALL --security-opt no-new-privileges -p 8080:8080 \
#         -v rmv-state:/var/lib/rmv -v ./rmv.toml:/etc/rmv/rmv.toml:ro -e RMV_CONFIG=/etc/rmv/rmv.toml ...
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS builder
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# To compile the hot modules. Debian's mirrors drop old versions, so a pin would soon break the build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# The virtual environment that runs has no pip of its own.
RUN python -m venv --without-pip /opt/rmv && python -m venv /opt/build
# The dependencies come before the source: a change of code leaves their layers as they are.
COPY requirements/runtime.txt requirements/compile.txt requirements/
RUN pip --python /opt/rmv/bin/python install --require-hashes -r requirements/runtime.txt \
    && /opt/build/bin/pip install --require-hashes -r requirements/compile.txt
COPY pyproject.toml README.md hatch_build.py ./
COPY sidecar sidecar
RUN HATCH_BUILD_HOOK_ENABLE_CUSTOM=true /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && pip --python /opt/rmv/bin/python install --no-deps --no-index /dist/*.whl

FROM python:${PYTHON}
# Numeric, so that Kubernetes can verify runAsNonRoot.
RUN groupadd --system --gid 65532 rmv \
    && useradd --system --uid 65532 --gid rmv --home-dir /var/lib/rmv --no-create-home rmv \
    && install --directory --owner rmv --group rmv --mode 0700 /var/lib/rmv
COPY --from=builder /opt/rmv /opt/rmv
# What is written where: docs/operations.md. With --read-only this is all that can be written, as an
# anonymous volume unless the run names one.
VOLUME ["/var/lib/rmv"]
ENV PATH=/opt/rmv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RMV_LISTEN=:8080 \
    RMV_ADMIN=:8081 \
    RMV_STATE_DIR=/var/lib/rmv
USER 65532:65532
WORKDIR /var/lib/rmv
EXPOSE 8080 8081
# Of a plain admin listener: with [admin_tls], or another port, say your own (--health-cmd).
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8081/readyz', timeout=2)"]
ENTRYPOINT ["rmv"]
CMD ["serve"]
