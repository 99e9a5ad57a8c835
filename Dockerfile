# One image for every command: penstock gateway | worker | topics | fm-stub | ...
# No frontend line and nothing newer than cache mounts: any engine since 20.10 with BuildKit builds this.

FROM python:3.12-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/build && python -m venv --without-pip /opt/venv
# The build backend has a lock of its own, so that nothing unhashed is downloaded and nothing of it reaches the image.
COPY deploy/image/build.lock /src/
RUN --mount=type=cache,target=/root/.cache/pip /opt/build/bin/pip install -q --require-hashes -r /src/build.lock
# Dependencies change rarely, the code often: two layers. Without a compiler: Faust falls back to pure Python on
# platforms for which it has no wheel.
COPY requirements-runtime.lock /src/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/build/bin/pip --python /opt/venv/bin/python install -q --require-hashes -r /src/requirements-runtime.lock
COPY pyproject.toml README.md /src/
COPY contracts /src/contracts
COPY producers /src/producers
COPY streams /src/streams
COPY gateways /src/gateways
# Bytecode is made here because the containers' file system is read-only.
RUN /opt/build/bin/pip wheel -q --no-deps --no-build-isolation --no-index --wheel-dir /src/dist /src \
    && /opt/build/bin/pip --python /opt/venv/bin/python install -q --no-deps --no-index /src/dist/*.whl \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="penstock" org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 penstock && useradd --uid 10001 --gid penstock --no-create-home --home-dir /app penstock
COPY --from=build /opt/venv /opt/venv
COPY deploy/image/answers.py /usr/local/bin/answers
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PENSTOCK_CONFIG=/app/penstock.yaml
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["penstock"]
CMD ["--help"]
