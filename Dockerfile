# oncofm as an image: `make image`, or `DOCKER_BUILDKIT=1 docker build .`; docs/container.md
# explains the arguments. The engine's own BuildKit reads this file, so it has no syntax line,
# which would download a newer one.
#
# Layers from the slowest to change to the fastest: Debian and Python, torch, locked packages,
# SBOM, oncofm with its workflows, weights.
ARG BASE_IMAGE=debian:bookworm-slim
ARG TORCH=cpu
ARG WEIGHTS=none

# --- what every stage stands on -------------------------------------------------------------
FROM ${BASE_IMAGE} AS base
# tini, as Linux does not end process 1 by a signal that it has no handler for: `docker stop`
# would wait ten seconds and kill.
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends python3 tini >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /tmp/* \
    && python3 -m venv --without-pip /opt/oncofm \
    && groupadd --gid 10001 oncofm \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin \
        oncofm \
    && install -d /app/models /app/data/input_data /app/weights \
    && install -d --owner=10001 --group=10001 /app/data/output_data

# What the layers below depend on, without what they do not: a new test marker in pyproject.toml
# must not install torch again.
FROM base AS project
COPY pyproject.toml oncofm/__init__.py utils/image/project.py /source/
RUN python3 /source/project.py /source/pyproject.toml /source/__init__.py /project

# --- tools of the build; none of them gets into the image -------------------------------------
FROM base AS tools
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates python3-venv >/dev/null \
    && python3 -m venv /opt/tools
COPY utils/image/site-pip /usr/local/bin/
COPY utils/image/tools.lock /build/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca --mount=type=secret,id=pip \
    site-pip install --quiet --no-deps --require-hashes -r /build/tools.lock
COPY utils/image/finish_layer.sh /build/

# Wheels of the build context, if there are any.
FROM base AS wheels
COPY LICENSE buil[d]/wheels/*.whl /wheels/

# --- torch: a CPU wheel from the build context or PyTorch's index, or the CUDA build ------------
FROM tools AS torch-cpu
ARG TORCH_VERSION=2.13.0
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=secret,id=ca --mount=type=secret,id=pip \
    set -- --python /opt/oncofm/bin/python install --quiet --no-deps --no-compile \
        --prefix /layers/torch "torch==${TORCH_VERSION}"; \
    site-pip "$@" --no-index --find-links /wheels 2>/dev/null \
    || site-pip "$@" --index-url "${TORCH_CPU_INDEX}"
RUN sh /build/finish_layer.sh /layers/torch

FROM tools AS torch-cuda
ARG TORCH_VERSION=2.13.0
COPY requirements.lock utils/image/install_layer.py utils/image/install_torch_cuda.py /build/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca --mount=type=secret,id=pip \
    /opt/tools/bin/python /build/install_torch_cuda.py \
        /build/requirements.lock /layers/torch "${TORCH_VERSION}" \
    && sh /build/finish_layer.sh /layers/torch

FROM torch-${TORCH} AS torch

# --- locked packages ------------------------------------------------------------------------------
FROM torch AS dependencies
ARG TORCH
COPY requirements.lock utils/image/install_layer.py /build/
COPY --from=project /project/dependencies-${TORCH}.txt /build/dependencies.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca --mount=type=secret,id=pip \
    xargs -d '\n' -a /build/dependencies.txt /opt/tools/bin/python /build/install_layer.py \
        --lock /build/requirements.lock --prefix /layers/dependencies --beside /layers/torch torch \
    && sh /build/finish_layer.sh /layers/dependencies

# --- what is inside: CycloneDX, with Debian's packages ------------------------------------------
FROM dependencies AS sbom
COPY --from=project /project/pyproject.toml /build/
COPY utils/image/sbom.py /build/
RUN cp -a /layers/torch/. /layers/dependencies/. /opt/oncofm/ \
    && /opt/tools/bin/cyclonedx-py environment --no-validate --output-reproducible \
        --pyproject /build/pyproject.toml --output-file /build/environment.json \
        /opt/oncofm/bin/python
RUN --mount=type=bind,from=base,source=/var/lib/dpkg,target=/base/dpkg \
    dpkg-query --admindir=/base/dpkg --show \
        --showformat '${Package}\t${Version}\t${Architecture}\n' >/build/debian.tsv \
    && mkdir -p /layers/sbom \
    && /opt/tools/bin/python /build/sbom.py /build/environment.json /build/debian.tsv \
        /layers/sbom/sbom.cdx.json

# --- our own package ------------------------------------------------------------------------------
FROM tools AS package
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY oncofm oncofm
COPY models models
COPY config config
COPY mhub mhub
# The workflows and modules lie in the package, where `oncofm run --workflow` finds them; the
# place where mhubio looks holds links to them, so that both run the same files.
RUN site-pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
    && site-pip --python /opt/oncofm/bin/python install --quiet --no-deps --no-index --no-compile \
        --prefix /layers/package /wheel/*.whl \
    && sh /build/finish_layer.sh /layers/package \
    && data=/opt/oncofm/lib/python3.11/site-packages/oncofm/_data \
    && install -d /layers/models/fmcib \
    && ln -s $data/mhub /layers/models/fmcib/utils \
    && ln -s $data/config /layers/models/fmcib/config \
    && ln -s $data/mhub/meta.json $data/mhub/mhub.toml /layers/models/fmcib/
# Where hosts of MONAI application packages look, and the folder of a node.
COPY utils/image/holoscan /holoscan
RUN install -d /layers/hosts/etc/holoscan /layers/hosts/var/holoscan/input \
        /layers/hosts/opt/holoscan/models /layers/hosts/opt/holoscan/docs \
    && install -d --owner=10001 --group=10001 /layers/hosts/var/holoscan/output \
    && install -d --owner=10001 --group=10001 --mode=0700 /layers/hosts/var/lib/oncofm \
    && install -m 0644 -t /layers/hosts/etc/holoscan /holoscan/*.json \
    && install -m 0644 -t /layers/hosts/var/holoscan /holoscan/app.yaml \
    && install -m 0644 -t /layers/hosts/opt/holoscan/docs README.md LICENSE \
    && ln -s /opt/oncofm/lib/python3.11/site-packages/oncofm /layers/hosts/opt/holoscan/app \
    && ln -s /app/weights/fmcib /layers/hosts/opt/holoscan/models/fmcib

# --- the image without weights and labels -------------------------------------------------------
FROM base AS app
# Every path that a library might write to lies under /tmp, the one place that is writable in a
# read-only container. LOGNAME, as a user without a name has none that Python could look up.
ENV PATH=/opt/oncofm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    HOME=/tmp \
    LOGNAME=oncofm \
    XDG_CACHE_HOME=/tmp/cache \
    TORCH_HOME=/tmp/cache/torch \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    ONCOFM_HOME=/app/weights
WORKDIR /app
COPY --from=torch /layers/torch/ /opt/oncofm/
COPY --from=dependencies /layers/dependencies/ /opt/oncofm/
COPY --from=sbom /layers/sbom/ /usr/share/oncofm/
COPY --from=package /layers/package/ /opt/oncofm/
COPY --from=package /layers/models/ /app/models/
COPY --from=package /layers/hosts/ /

# --- weights: none, a file of the build context, or downloaded; each is checked ----------------
# With the CPU engine comes the model that it runs, compared with torch here: a run on a CPU then
# imports no torch.
FROM base AS weights-none
RUN mkdir -p /weights

FROM scratch AS weights-given
ARG WEIGHTS_FILE=build/weights/model_weights.torch
COPY ${WEIGHTS_FILE} /model_weights.torch

FROM app AS weights-file
ARG TORCH
ARG WEIGHTS_SHA256
COPY --from=weights-given /model_weights.torch /weights/fmcib/
RUN test -n "${WEIGHTS_SHA256}" \
    || { echo "Give the checksum: --build-arg WEIGHTS_SHA256=\$(sha256sum ...)" >&2; exit 1; }; \
    oncofm weights verify --sha256 "${WEIGHTS_SHA256}" /weights/fmcib/model_weights.torch \
    && echo "${WEIGHTS_SHA256}  model_weights.torch" >/weights/fmcib/model_weights.torch.sha256 \
    && { [ "$TORCH" = cuda ] \
        || oncofm weights prepare --weights /weights/fmcib/model_weights.torch; } \
    && chmod -R a+rX /weights

FROM app AS weights-fetch
ARG TORCH
ARG WEIGHTS_SHA256
ARG WEIGHTS_URL
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates >/dev/null
# Kept between builds, apart for each address: a change of our code downloads nothing again.
RUN --mount=type=cache,target=/cache --mount=type=secret,id=ca \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    place="/cache/$(echo "${WEIGHTS_URL}" | sha256sum | cut -c 1-16)"; \
    oncofm weights fetch fmcib --to "$place" ${WEIGHTS_SHA256:+--sha256 "${WEIGHTS_SHA256}"} \
        ${WEIGHTS_URL:+--url "${WEIGHTS_URL}"} \
    && install -D --mode=0644 -t /weights/fmcib "$place/model_weights.torch" \
        "$place/model_weights.torch.sha256" \
    && { [ "$TORCH" = cuda ] \
        || oncofm weights prepare --weights /weights/fmcib/model_weights.torch; } \
    && chmod -R a+rX /weights

FROM weights-${WEIGHTS} AS weights

# --- the image ----------------------------------------------------------------------------------
FROM app
COPY --from=weights /weights/ /app/weights/
USER 10001:10001
# Without arguments: what the host that started it asks for, else MHub's workflow `default`.
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "oncofm.container"]
ARG VERSION
ARG REVISION
ARG CREATED
ARG WEIGHTS_SHA256
LABEL org.opencontainers.image.title="oncofm" \
    org.opencontainers.image.description="FMCIB features of CT lesions; for research use only" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.documentation="https://oncofm.readthedocs.io" \
    org.opencontainers.image.source="https://oncofm.readthedocs.io" \
    org.oncofm.model="fmcib" \
    org.oncofm.weights.sha256="${WEIGHTS_SHA256}" \
    org.oncofm.weights.license="CC-BY-NC-4.0"
