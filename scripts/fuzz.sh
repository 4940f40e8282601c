#!/bin/sh
# Runs every fuzz test whose name matches the first argument for as long as the second says: `go test`
# itself takes one at a time. An input that fails is kept under testdata/fuzz of its package.
set -eu

pattern=${1:-.}
duration=${2:-20s}

cd "$(dirname "$0")/.."

# One "name folder" a line.
tests=$(grep -rE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*\(' . |
	sed -E 's|^(.*)/[^/]*\.go:func (Fuzz[A-Za-z0-9_]*)\(.*|\2 \1|' | awk -v pattern="$pattern" '$1 ~ pattern' | sort)
if [ -z "$tests" ]; then
	echo "no fuzz test matches '$pattern'" >&2
	exit 1
fi

# Read from descriptor 3, so that go test leaves the list alone.
while read -r name folder <&3; do
	echo "== $name in $folder for $duration"
	go test -vet=off -run='^$' -fuzz="^$name\$" -fuzztime="$duration" "$folder"
done 3<<EOF
$tests
EOF
