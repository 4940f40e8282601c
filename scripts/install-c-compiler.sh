#!/bin/sh
# Finds a C compiler for the race detector, or installs one where it may: as root on Debian and its
# descendants. Without one the tests run all the same, only without the race detector (scripts/go-test.sh),
# so this never fails.
set -eu

cd "$(dirname "$0")/.."

scripts/race-works.sh && exit 0

command="apt-get install -y --no-install-recommends gcc libc6-dev"
if ! command -v apt-get >/dev/null 2>&1; then
	echo "No C compiler with its library's headers: the race detector needs them (CC says which compiler to use)." >&2
elif [ "$(id -u)" -ne 0 ]; then
	echo "No C compiler with its library's headers: the race detector needs them. To install them: sudo $command" >&2
else
	echo "Installing a C compiler for the race detector: $command"
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086 # the command's words are meant to be split
	{ apt-get update -q && $command; } </dev/null >&2 || echo "The installation failed." >&2
fi
