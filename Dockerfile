# bridge in a container: `docker build -t bridge .`, then
#   docker run --rm --read-only -v ./bridge.yaml:/etc/bridge/bridge.yaml:ro -v bridge-state:/var/lib/bridge bridge
# Handlers in Node.js need the second image: `docker build --target node -t bridge:node .`; for both kinds of machines, with a
# list of what is inside: `docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=true .`
# Build arguments: EXTRAS (`local` adds the embedded endpoint, for `bridge demo` and `--local`; `otel` traces), PYTHON_IMAGE
# and NODE_IMAGE (a mirror's names).
ARG PYTHON_IMAGE=python:3.13.9-slim-bookworm
ARG NODE_IMAGE=node:22.21.1-bookworm-slim

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY .ci/constraints.txt ./constraints.txt
COPY bridge ./bridge
# The environment gets no pip of its own, and every version in it is the one that was tested.
RUN python3 -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && python3 -m venv --without-pip /opt/bridge \
 && wheel="$(echo /wheels/bridge-*.whl)" \
 && python3 -m pip --python /opt/bridge/bin/python install --no-cache-dir --constraint constraints.txt \
      "bridge${EXTRAS:+[${EXTRAS}]} @ file://${wheel}"

FROM ${NODE_IMAGE} AS nodejs

FROM ${PYTHON_IMAGE} AS bridge
LABEL org.opencontainers.image.title="bridge" \
      org.opencontainers.image.description="AWS Lambda's event source mapping as a program you own" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/bridge --shell /usr/sbin/nologin bridge \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/bridge \
 && install -d -m 0755 /etc/bridge
COPY --from=build /opt/bridge /opt/bridge
ENV PATH=/opt/bridge/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    STATE_DIRECTORY=/var/lib/bridge
# Numeric, so that an orchestrator can see that it is not root. Only the state folder is written to: the root may be read-only.
USER 10001:10001
WORKDIR /var/lib/bridge
VOLUME ["/var/lib/bridge"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["bridge", "health"]
# The daemon itself is process 1: it drains on SIGTERM and owns its children.
ENTRYPOINT ["bridge"]
CMD ["run"]

FROM bridge AS node
COPY --from=nodejs /usr/local/bin/node /usr/local/bin/node

# What is built without `--target`: without Node.js.
FROM bridge
