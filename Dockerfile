# syntax=docker/dockerfile:1
#
# One image for the API, the workers, the provisioner and the migrations; they differ in the command and in the
# secrets that they get:
#
#   docker run … tenantry                  the API (`serve`)
#   docker run … tenantry provisioner      the one process that makes tenants' schemas
#   docker run … tenantry worker           runs jobs; any number
#   docker run … tenantry migrate shared   before a new release is rolled out
#
# docs/operations/deployment.md says which of them gets which secret.

ARG BASE=python:3.13-slim-bookworm


# The project as a wheel: sources and migrations, nothing else of the repository.
FROM ${BASE} AS wheel
WORKDIR /build
COPY requirements/build.txt requirements/build.txt
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY migrations migrations
# No isolation and no index: the build backend is the pinned one, nothing is fetched here.
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels .


# The virtual environment. All requirements are wheels, so that no stage needs a compiler.
FROM ${BASE} AS environment
COPY requirements/runtime.txt /requirements/runtime.txt
RUN python -m venv --without-pip /opt/tenantry
RUN pip --python /opt/tenantry/bin/python install --no-cache-dir --only-binary :all: --require-hashes -r /requirements/runtime.txt
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/tenantry/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl


FROM ${BASE}
LABEL org.opencontainers.image.title="Tenantry" \
      org.opencontainers.image.description="A multi-tenant SaaS backend: a PostgreSQL schema per organization" \
      org.opencontainers.image.licenses="Apache-2.0"
# Nobody installs anything into a running container.
RUN pip uninstall --yes --quiet pip --root-user-action ignore && rm -rf /usr/local/lib/python3*/ensurepip
# Root's, and so not for the process to change.
COPY --from=environment /opt/tenantry /opt/tenantry
ENV PATH=/opt/tenantry/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TENANTRY_HOST=0.0.0.0 \
    TENANTRY_HOME=/tmp/tenantry
WORKDIR /tmp
# A number, so that Kubernetes can see that it is not root (runAsNonRoot). Nothing but /tmp needs to be writable.
USER 65532:65532
EXPOSE 8000
STOPSIGNAL SIGTERM
# Of the API alone: run other commands with --no-healthcheck. Kubernetes has its own probes and does not look at it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('TENANTRY_PORT', '8000') + '/health/live', timeout=2)"]
ENTRYPOINT ["tenantry"]
CMD ["serve"]
