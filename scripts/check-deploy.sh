#!/bin/sh
# Holds the files of deploy/ against the programs that read them: systemd's unit where systemd-analyze is installed,
# Kubernetes' and Compose's by their own Go types and schemas (a module of its own, deploy/check). That variables,
# commands and flags are the program's, and that nats-server takes its configuration, is among the Go tests.
set -eu

cd "$(dirname "$0")/.."

# What systemd says of the unit's exposure, from 0 (none) to 100; below 20 is "OK".
most=20

check_unit() {
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	printf '#!/bin/sh\n' >"$dir/serversync"
	chmod +x "$dir/serversync"
	for form in external embedded; do
		mkdir -p "$dir/$form"
		sed "s#/usr/local/bin/serversync#$dir/serversync#" deploy/systemd/serversync.service >"$dir/$form/serversync.service"
		if [ "$form" = embedded ]; then
			cp -R deploy/systemd/serversync.service.d "$dir/$form/"
		fi
		said=$(systemd-analyze verify --man=no "$dir/$form/serversync.service" 2>&1) || {
			echo "systemd-analyze verify ($form stores): $said" >&2
			return 1
		}
		if [ -n "$said" ]; then # a word it does not know is a warning to it
			echo "systemd-analyze verify ($form stores): $said" >&2
			return 1
		fi
		systemd-analyze security --offline=true --threshold=$most --no-pager "$dir/$form/serversync.service" >"$dir/security" || {
			grep '✗' "$dir/security" >&2
			tail -1 "$dir/security" >&2
			return 1
		}
		printf '%s stores: %s\n' "$form" "$(grep 'Overall exposure' "$dir/security" | sed 's/^[^A-Za-z]*//')"
	done
}

if command -v systemd-analyze >/dev/null; then
	check_unit
else
	echo "systemd-analyze is not installed: the unit is not verified (Debian's package systemd has it)"
fi

cd deploy/check
go mod tidy -diff
go vet ./...
go test -count=1 ./... # files outside its module do not count for the cache
