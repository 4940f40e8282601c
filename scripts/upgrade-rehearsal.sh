#!/bin/sh
# Rehearses the upgrade from another version to this one, and the way back, without a maintenance window: builds both,
# runs them side by side on one database and one stream with webhooks coming in, and checks that nothing is lost.
#
#     scripts/upgrade-rehearsal.sh REF [flags of cmd/upgrade, such as -phase 10s -seed 7]
set -eu

cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
	echo "say which version is upgraded from: scripts/upgrade-rehearsal.sh REF, such as a tag or HEAD~20" >&2
	exit 2
fi
ref=$1
shift
if ! git rev-parse --quiet --verify "$ref^{commit}" >/dev/null; then
	echo "there is no commit $ref here; in a shallow clone, git fetch --unshallow first" >&2
	exit 2
fi

dir=$(mktemp -d)
trap 'git worktree remove --force "$dir/old" 2>/dev/null; rm -rf "$dir"' EXIT
git worktree add --quiet --detach "$dir/old" "$ref"
export CGO_ENABLED=0
(cd "$dir/old" && go build -buildvcs=false -ldflags "-X main.version=$(git rev-parse --short HEAD)" -o "$dir/older" ./cmd/serversync)
go build -buildvcs=false -ldflags "-X main.version=$(git rev-parse --short HEAD)" -o "$dir/newer" ./cmd/serversync
go build -buildvcs=false -o "$dir/upgrade" ./cmd/upgrade
echo "from $("$dir/older" version) to $("$dir/newer" version)"
"$dir/upgrade" -old "$dir/older" -new "$dir/newer" "$@"
