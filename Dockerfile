# syntax=docker/dockerfile:1
FROM python:3.11-slim-bookworm AS build

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY cache_backends cache_backends
COPY service service
RUN python -m venv /opt/anyclaude \
    && /opt/anyclaude/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt '.[redis]'


FROM python:3.11-slim-bookworm

# MLX's wheels for Linux are linked against the reference BLAS, which is many times slower.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libopenblas0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home anyclaude \
    && install --directory --owner=anyclaude --mode=0700 /var/lib/anyclaude /var/lib/anyclaude/models

COPY --from=build /opt/anyclaude /opt/anyclaude

ENV PATH=/opt/anyclaude/bin:$PATH \
    ANYCLAUDE_HOME=/var/lib/anyclaude \
    PYTHONUNBUFFERED=1

USER 10001
WORKDIR /home/anyclaude
VOLUME /var/lib/anyclaude
EXPOSE 8081

# A large model may be 'loading' for the whole start period.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --start-interval=2s --retries=3 \
    CMD ["python", "-c", "import json, urllib.request as r; assert json.load(r.urlopen('http://127.0.0.1:8081/health', timeout=4))['status'] in ('healthy', 'degraded')"]

# SIGTERM lets running answers finish within shutdownGraceSeconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["anyclaude"]
CMD ["serve"]
