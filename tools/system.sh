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
echo "system: installing ${packages[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install --yes --no-install-recommends "${packages[@]}"; } </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "system: apt-get could not install ${packages[*]}" >&2
    exit 1
fi
