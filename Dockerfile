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
# `make image` builds it; docs/image.md says how it is scanned, signed, verified and kept up to date, and
# docs/operations/deployment.md which process gets which secret.

ARG BASE=python:3.13-slim-trixie


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
RUN python -m venv --without-pip /opt/tenantry \
    && pip --python /opt/tenantry/bin/python install --no-cache-dir --no-compile --only-binary :all: \
        --require-hashes -r /requirements/runtime.txt
COPY --from=wheel /wheels /wheels
# Compiled here, since nobody may write beside the sources where it runs. By hash and unchecked: a copy of a layer with
# other times would make the compiled files stale, and every start seconds longer.
RUN pip --python /opt/tenantry/bin/python install --no-cache-dir --no-compile --no-deps --no-index /wheels/*.whl \
    && /opt/tenantry/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/tenantry/lib


FROM ${BASE}
# Nobody installs anything into a running container, and nobody becomes somebody else in it. The standard library comes
# without its compiled files.
RUN pip uninstall --yes --quiet pip --root-user-action ignore \
    && rm -rf /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/idlelib /usr/local/lib/python3*/turtledemo \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/local/lib/python3*
# Root's, and so not for the process to change.
COPY --from=environment /opt/tenantry /opt/tenantry
ENV PATH=/opt/tenantry/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TENANTRY_HOST=0.0.0.0 \
    TENANTRY_METRICS_PORT=9464 \
    TENANTRY_HOME=/tmp/tenantry
WORKDIR /tmp
# A number, so that Kubernetes can see that it is not root (runAsNonRoot). Nothing but /tmp needs to be writable.
USER 65532:65532
EXPOSE 8000
STOPSIGNAL SIGTERM
# Of whichever process it runs; of a command that ends by itself, none (--no-healthcheck). Kubernetes has its own probes
# and does not look at it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["tenantry", "health", "--quiet"]
ENTRYPOINT ["tenantry"]
CMD ["serve"]
# At the end: what they say is new with every commit, and the layers above are not.
ARG BASE
ARG VERSION=
ARG REVISION=
ARG CREATED=
ARG SOURCE=
LABEL org.opencontainers.image.title="Tenantry" \
      org.opencontainers.image.description="A multi-tenant SaaS backend: a PostgreSQL schema per organization" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"
