#!/usr/bin/env bash
# Builds the image (`make image`). Plain `docker build .` works too; this script adds what a site
# has set up on this machine: its package index, its certificates, its wheels, a weights file.
#
#   IMAGE           name of the image (default oncofm:latest)
#   TORCH           cpu (default) or cuda
#   WEIGHTS         none (default), fetch, or a weights file
#   WEIGHTS_SHA256  checksum that the weights must have (default for a file: the one it has)
#   BASE_IMAGE      default debian:bookworm-slim
#   DOCKER          docker client
set -euo pipefail
cd "$(dirname "$0")/../.."

image="${IMAGE:-oncofm:latest}"
torch="${TORCH:-cpu}"
weights="${WEIGHTS:-none}"
sha256="${WEIGHTS_SHA256:-}"
python="${PYTHON:-python3}"
torch_version="$(sed -nE 's/^ARG TORCH_VERSION=(.*)/\1/p' Dockerfile | head -n 1)"
docker="$(utils/image/find_docker.sh)"

secrets="$(mktemp -d)"
given="build/weights/given-$$.torch"
trap 'rm -rf "$secrets" "$given"' EXIT

# What pip is told on this machine, for the build only. Local folders of wheels do not exist in
# the build; the one wheel that matters goes through the build context.
arguments=()
if "$python" -m pip --version >/dev/null 2>&1; then
    "$python" utils/image/pip_settings.py "$secrets"
    if [ "$torch" = cpu ] && ! ls build/wheels/torch-"$torch_version"* >/dev/null 2>&1; then
        "$python" -m pip download --quiet --no-deps --no-index --dest build/wheels \
            --only-binary :all: --python-version 3.11 --platform "manylinux_2_28_$(uname -m)" \
            "torch==$torch_version" 2>/dev/null \
            || echo "No CPU wheel of torch on this machine: the build asks PyTorch's index."
    fi
fi
for name in pip ca; do
    [ ! -s "$secrets/$name" ] || arguments+=(--secret "id=$name,src=$secrets/$name")
done

case "$weights" in
    none | fetch) arguments+=(--build-arg "WEIGHTS=$weights") ;;
    *)
        mkdir -p build/weights
        ln -L "$weights" "$given" 2>/dev/null || cp "$weights" "$given"
        sha256="${sha256:-$(sha256sum "$weights" | cut -d ' ' -f 1)}"
        arguments+=(--build-arg WEIGHTS=file --build-arg "WEIGHTS_FILE=$given")
        ;;
esac
if git rev-parse --verify --quiet HEAD >/dev/null; then
    revision="$(git rev-parse HEAD)$([ -z "$(git status --porcelain)" ] || echo -dirty)"
    created="$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)"
    arguments+=(--build-arg "REVISION=$revision" --build-arg "CREATED=$created")
fi
for name in BASE_IMAGE WEIGHTS_URL HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
done

build() {
    DOCKER_BUILDKIT=1 "$docker" build --tag "$image" --build-arg "TORCH=$torch" \
        --build-arg "WEIGHTS_SHA256=$sha256" \
        --build-arg "VERSION=$(sed -nE 's/^__version__ = "(.*)"/\1/p' oncofm/__init__.py)" \
        "${arguments[@]}" "$@" .
}
build "$@"
if [ "$weights" = fetch ] && [ -z "$sha256" ]; then
    # Only now is the checksum known; everything but the label comes from the build cache.
    sha256="$("$docker" run --rm --network=none --entrypoint cut "$image" -d ' ' -f 1 \
        /app/weights/fmcib/model_weights.torch.sha256)"
    build "$@"
fi
