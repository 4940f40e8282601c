#!/bin/sh
# Runs `go test` with the race detector where it works, and says so where it does not.
set -eu

cd "$(dirname "$0")/.."

if scripts/race-works.sh; then
	export CGO_ENABLED=1
	set -- -race "$@"
else
	echo "No C compiler for this platform's race detector: testing without -race." >&2
fi
echo "go test $*"
exec go test "$@"
