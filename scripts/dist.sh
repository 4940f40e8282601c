#!/usr/bin/env bash
# Makes the archive of a release for one platform: the program, its pages, and what deploy/ has.
#
#   scripts/dist.sh VERSION GOOS GOARCH   writes dist/serversync-VERSION-GOOS-GOARCH.tar.gz and prints its path
#
# LDFLAGS are the linker's, by default the version alone.
set -euo pipefail

version=${1:?which version?} os=${2:?which GOOS?} arch=${3:?which GOARCH?}
cd "$(dirname "$0")/.."
name=serversync-$version-$os-$arch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/$name" dist
CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -buildvcs=false -trimpath -ldflags "-s -w ${LDFLAGS:--X main.version=$version}" -o "$work/$name/serversync" ./cmd/serversync
cp -R README.md CHANGELOG.md docs deploy "$work/$name/"
tar -C "$work" -czf "dist/$name.tar.gz" "$name"
printf '%s\n' "dist/$name.tar.gz"
