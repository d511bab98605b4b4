#!/usr/bin/env bash
# Installs, by apt-get and as root only, the programs that the tests start and that are missing: PostgreSQL, Redis, Chromium.
#
# `tools/system.sh PACKAGE...` installs those packages instead. Fails, saying what to do, where something stays missing.
set -euo pipefail

packages=("$@")
if [ $# = 0 ]; then
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null || packages+=(postgresql)
    command -v redis-server >/dev/null || packages+=(redis-server)
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
        packages+=(chromium fonts-dejavu-core)
fi
[ ${#packages[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "system: missing: ${packages[*]}. On Debian or Ubuntu: sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt() { apt-get --yes --option DPkg::Lock::Timeout=300 "$@" </dev/null >"$log" 2>&1; }

echo "system: installing ${packages[*]}"
apt update || tail -n 5 "$log" >&2 # its old lists may do
failed=()
for package in "${packages[@]}"; do # one by one, since one that cannot be had would keep out the others
    apt install --no-install-recommends "$package" || { failed+=("$package") && tail -n 20 "$log" >&2; }
done
[ ${#failed[@]} = 0 ] || {
    echo "system: apt-get could not install ${failed[*]}" >&2
    exit 1
}
