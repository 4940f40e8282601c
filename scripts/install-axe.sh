#!/bin/sh
# Sees to it that axe-core, which the tests of the pages check them with, is in
# web/testdata/axe/node_modules as package-lock.json there names it. npm fetches
# it; if there is no npm, Debian's is installed, when it may be; otherwise the
# command to type is printed.
#
# Exit status: 0 it is there, 1 npm or the installation failed, 2 a person has
# to act.
#
# Environment:
#   ROOT  prefix of the system's own files; for tests
set -eu

ROOT=${ROOT:-}
here=$(cd "$(dirname "$0")" && pwd)
self=$0
dir=$here/../web/testdata/axe
lock=$dir/package-lock.json
# npm writes it last.
installed=$dir/node_modules/.package-lock.json

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# up_to_date: what is there is not older than the lock file. It says so.
up_to_date() {
    [ -e "$dir/node_modules/axe-core/axe.min.js" ] && [ -e "$installed" ] || return 1
    [ -z "$(find "$lock" -newer "$installed")" ] || return 1
    version=$(sed -n '/^ *"version": "\([0-9][^"]*\)".*$/ { s//\1/p; q; }' "$dir/node_modules/axe-core/package.json")
    say "axe-core $version: web/testdata/axe/node_modules"
}

# how_to_install: the command for this system.
how_to_install() {
    if [ -e "$ROOT/etc/debian_version" ]; then
        say "sudo apt-get install --no-install-recommends npm"
    elif command -v dnf >/dev/null 2>&1; then
        say "sudo dnf install npm"
    elif command -v apk >/dev/null 2>&1; then
        say "sudo apk add npm"
    elif command -v pacman >/dev/null 2>&1; then
        say "sudo pacman -S npm"
    elif command -v brew >/dev/null 2>&1; then
        say "brew install node"
    else
        say "sh $self   # once npm is installed: https://docs.npmjs.com/downloading-and-installing-node-js-and-npm"
    fi
}

up_to_date && exit 0

if ! command -v npm >/dev/null 2>&1; then
    if [ ! -e "$ROOT/etc/debian_version" ] || ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
        warn "No npm found, which fetches axe-core for the tests of the pages. Type:"
        warn "  $(how_to_install)"
        exit 2
    fi
    say "No npm found: installing Debian's with apt-get, to fetch axe-core for the tests of the pages."
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update -q && apt-get install -q -y --no-install-recommends npm; } </dev/null; then
        warn "apt-get failed (see above). When what it complains about is mended, type:"
        warn "  sh $self"
        exit 1
    fi
fi

# No script of a package is run. npm fetches from the registry that this machine
# is configured for.
if ! npm ci --prefix "$dir" --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null >/dev/null; then
    warn "npm failed (see above). When what it complains about is mended, type:"
    warn "  sh $self"
    exit 1
fi
touch "$installed"
up_to_date && exit 0
warn "npm brought no axe-core to $dir/node_modules."
exit 1
