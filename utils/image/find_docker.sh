#!/usr/bin/env bash
# Prints the docker client that can build with BuildKit: $DOCKER, else the first good one on PATH.
# A newer client without its buildx plugin cannot, even where an older one beside it can.
set -euo pipefail

if [ -n "${DOCKER:-}" ]; then
    echo "$DOCKER"
    exit 0
fi
while read -r candidate; do
    major="$("$candidate" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')"
    if [ "$major" -lt 23 ] || "$candidate" buildx version >/dev/null 2>&1; then
        echo "$candidate"
        exit 0
    fi
done < <(type -aP docker)
echo "No docker client that builds with BuildKit: install docker.io (20.10) or docker-buildx." >&2
exit 1
