#!/bin/sh
# Checks that every shell script parses and, where shellcheck is installed (Debian's package of that name),
# that it has no warning.
set -eu

cd "$(dirname "$0")/.."

for script in scripts/*.sh .ci/run; do
	case "$(head -n 1 "$script")" in
	*bash*) bash -n "$script" ;;
	*) sh -n "$script" ;;
	esac
	[ -x "$script" ] || {
		echo "$script is not executable" >&2
		exit 1
	}
done
if command -v shellcheck >/dev/null 2>&1; then
	shellcheck --severity=warning scripts/*.sh .ci/run
fi
