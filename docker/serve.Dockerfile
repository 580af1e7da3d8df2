# Serves an export: no torch, no training code is used, about 400 MB.
#
#   docker build -f docker/serve.Dockerfile -t clickwise-serve .
#   docker run --rm -p 127.0.0.1:8080:8080 -v "$PWD/exported:/model:ro" clickwise-serve
FROM python:3.12-slim AS build

COPY constraints.txt pyproject.toml README.md LICENSE docker/serve-requirements.txt /clickwise/
COPY src /clickwise/src
COPY recipes /clickwise/recipes
COPY data/kuairand_pure /clickwise/data/kuairand_pure
RUN python -m venv /opt/clickwise \
    && /opt/clickwise/bin/pip install --no-cache-dir -c /clickwise/constraints.txt \
        -r /clickwise/serve-requirements.txt \
    && /opt/clickwise/bin/pip install --no-cache-dir --no-deps /clickwise

FROM python:3.12-slim

COPY --from=build /opt/clickwise /opt/clickwise
RUN useradd --uid 10001 clickwise && mkdir /states && chown clickwise /states
USER 10001
VOLUME /states
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=2s --start-period=30s \
    CMD ["/opt/clickwise/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/v2/health/ready')"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/clickwise/bin/clickwise", "serve", "--host", "0.0.0.0", "--port", "8080"]
CMD ["/model", "--states", "sqlite:/states/states.db"]
