#!/usr/bin/env bash
# What `make guide` makes its bare machine with: debootstrap and systemd-nspawn. Installs them as root on Debian,
# else says what to do.
set -euo pipefail

missing=()
command -v debootstrap >/dev/null || missing+=(debootstrap)
command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
((${#missing[@]} == 0)) && exit 0

if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
	printf 'make guide needs root on Debian, and the packages %s: apt-get install %s\n' "${missing[*]}" "${missing[*]}" >&2
	exit 1
fi
printf 'installing %s\n' "${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
