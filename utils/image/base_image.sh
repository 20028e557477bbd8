#!/usr/bin/env bash
# Makes the base image of the Dockerfile from Debian's own packages, where no registry is reachable.
# An image of that name that is already here stays as it is. Needs mmdebstrap and a Docker engine.
#
#   BASE_IMAGE  name of the image (default debian:bookworm-slim)
#   MIRROR      Debian mirror (default: mmdebstrap's choice, with updates and security)
set -euo pipefail

image="${BASE_IMAGE:-debian:bookworm-slim}"
here="$(cd "$(dirname "$0")" && pwd)"
docker="$("$here/find_docker.sh")"

if "$docker" image inspect "$image" >/dev/null 2>&1; then
    echo "$image is here already."
    exit 0
fi
if ! command -v mmdebstrap >/dev/null; then
    echo "mmdebstrap is missing; install it with: apt-get install mmdebstrap" >&2
    exit 1
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# As the official slim image: no documents but the licences, no translations, empty caches.
# With /usr merged from the start, so that usrmerge and its 47 MB of perl are not needed.
mmdebstrap --variant=minbase --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --setup-hook='mkdir -p "$1"/etc/apt/preferences.d
        printf "Package: usrmerge\nPin: release *\nPin-Priority: -1\n" \
            >"$1"/etc/apt/preferences.d/no-usrmerge' \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook='rm -rf "$1"/etc/apt/preferences.d/no-usrmerge
        rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*' \
    bookworm "$work/base.tar" ${MIRROR:+"$MIRROR"} 2>"$work/log" || { tail "$work/log" >&2; exit 1; }
"$docker" import --change 'CMD ["bash"]' "$work/base.tar" "$image" >/dev/null
echo "$image made with mmdebstrap."
