#!/bin/sh
# Finds a Chromium or Chrome for the tests of the pages, in the places where
# they look themselves, and says which. If there is none, it installs Debian's,
# when it may; otherwise it prints the command to type.
#
# Exit status: 0 there is one, 1 the installation failed, 2 a person has to act.
#
# Environment:
#   CHROMIUM  the program to use; nothing else is looked at then
#   ROOT      prefix of the system's own files; for tests
set -eu

ROOT=${ROOT:-}
self=$0
packages="chromium fonts-dejavu-core"

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# use PROGRAM: says so and succeeds when it is a browser of that family.
use() {
    path=$(command -v "$1") || return 1
    version=$("$path" --version 2>/dev/null | sed -n 's/^.*\(Chrom[a-z]* [0-9][0-9.]*\).*$/\1/p' | grep .) || return 1
    say "$version: $path"
}

# The same names, in the same order, are in cmd/serversync/pages_browser_test.go.
find_chromium() {
    for program in chromium chromium-browser google-chrome google-chrome-stable; do
        use "$program" && return
    done
    return 1
}

# how_to_install: the command for this system.
how_to_install() {
    if [ -e "$ROOT/etc/debian_version" ]; then
        say "sudo sh $self"
    elif command -v dnf >/dev/null 2>&1; then
        say "sudo dnf install chromium dejavu-sans-fonts"
    elif command -v apk >/dev/null 2>&1; then
        say "sudo apk add chromium font-dejavu"
    elif command -v pacman >/dev/null 2>&1; then
        say "sudo pacman -S chromium ttf-dejavu"
    else
        say "export CHROMIUM=/the/path/of/chromium   # once Chromium or Chrome is installed"
    fi
}

if [ -n "${CHROMIUM:-}" ]; then
    use "$CHROMIUM" && exit 0
    warn "CHROMIUM is $CHROMIUM, which is no Chromium and no Chrome. Set it to the program, or unset it:"
    warn "  unset CHROMIUM"
    exit 2
fi
find_chromium && exit 0

if [ ! -e "$ROOT/etc/debian_version" ] || ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
    warn "No Chromium and no Chrome found. Type:"
    warn "  $(how_to_install)"
    exit 2
fi
say "No Chromium and no Chrome found: installing Debian's with apt-get ($packages)."
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # the packages are meant to be split
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $packages; } </dev/null; then
    warn "apt-get failed (see above). When what it complains about is mended, type:"
    warn "  sh $self"
    exit 1
fi
find_chromium && exit 0
warn "The installation brought no Chromium that runs."
exit 1
