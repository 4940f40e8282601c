#!/bin/sh
# Tidies tools.mod and tools.sum, or with -diff only says what is not tidy and fails. They are tidied in an
# empty folder: `go mod tidy -modfile=tools.mod` in this one would pull in whatever the product imports.
set -eu

cd "$(dirname "$0")/.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
cp tools.mod "$dir/go.mod"
cp tools.sum "$dir/go.sum"
(cd "$dir" && go mod tidy "$@")
if [ $# -eq 0 ]; then
	cp "$dir/go.mod" tools.mod
	cp "$dir/go.sum" tools.sum
fi
