#!/bin/sh
# Finds a PostgreSQL that serversync can run as its embedded server (version 15
# or newer), in the places where the program itself looks, and says which. If
# there is none, it installs Debian's, when it may; otherwise it prints the
# command to type.
#
# Exit status: 0 there is one, 1 the installation failed, 2 a person has to act.
#
# Environment:
#   PG_BINDIR  directory of the binaries to use; nothing else is looked at then
#   ROOT       prefix of the system's own files; for tests
set -eu

min=15
ROOT=${ROOT:-}
etc=$ROOT/etc/postgresql-common
conf=$etc/createcluster.conf
self=$0

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# version_of BINDIR: prints the version of the binaries there; fails without both
# of the programs that matter.
version_of() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 1
    "$1/postgres" --version 2>/dev/null | sed -n 's/^.*(PostgreSQL) \([0-9][^ ]*\).*$/\1/p' | grep .
}

# use BINDIR: says so and succeeds when the binaries there will do.
use() {
    version=$(version_of "$1") || return 1
    major=$(printf '%s' "$version" | sed 's/[^0-9].*//')
    [ "$major" -ge "$min" ] || return 1
    say "PostgreSQL $version: $1"
}

# real_dir PROGRAM: the directory where a program of PATH really is.
real_dir() {
    path=$(command -v "$1") || return 1
    dirname "$(readlink -f "$path" 2>/dev/null || printf '%s' "$path")"
}

find_postgresql() {
    numbers=$(for dir in "$ROOT"/usr/lib/postgresql/*/bin; do basename "$(dirname "$dir")"; done)
    for number in $(printf '%s\n' "$numbers" | grep '^[0-9][0-9]*$' | sort -rn); do
        use "$ROOT/usr/lib/postgresql/$number/bin" && return
    done
    for program in postgres initdb; do
        dir=$(real_dir "$program") && use "$dir" && return
    done
    dir=$(pg_config --bindir 2>/dev/null) && use "$dir"
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
        say "brew install postgresql"
    else
        say "export PG_BINDIR=/the/directory/with/postgres/and/initdb   # once PostgreSQL is installed"
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
    say "No PostgreSQL $min or newer found: installing Debian's with apt-get (its binaries; no server is set up or started)."
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

if [ -n "${PG_BINDIR:-}" ]; then
    use "$PG_BINDIR" && exit 0
    warn "PG_BINDIR is $PG_BINDIR, where no PostgreSQL $min or newer is. Set it to a directory with postgres and initdb, or unset it:"
    warn "  unset PG_BINDIR"
    exit 2
fi
find_postgresql && exit 0

if [ ! -e "$ROOT/etc/debian_version" ] || ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
    warn "No PostgreSQL $min or newer found. Type:"
    warn "  $(how_to_install)"
    exit 2
fi
if ! install_on_debian; then
    warn "apt-get failed (see above). When what it complains about is mended, type:"
    warn "  sh $self"
    exit 1
fi
find_postgresql && exit 0
warn "The installation brought no PostgreSQL $min or newer to $ROOT/usr/lib/postgresql."
exit 1
