#!/usr/bin/env bash
# Brings .venv in step with the lock files: `tools/setup.sh run` to serve, `tools/setup.sh dev` to test and check as well.
#
# Quick when nothing has changed since the last time. PYTHON names the interpreter; the default is python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
run) locks=(base build) ;;
dev) locks=(base build dev) ;;
*)
    echo "usage: tools/setup.sh run|dev" >&2
    exit 2
    ;;
esac
python=${PYTHON:-python3}

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

command -v "$python" >/dev/null ||
    fail "Python 3.11 or later is needed, but there is no '$python'." "Install it, or name another: PYTHON=python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or later is needed, but '$python' is $("$python" --version 2>&1)." "Name another: PYTHON=python3.12"

# Two of these in one tree wait for each other.
if command -v flock >/dev/null; then
    exec 9<tools/setup.sh
    flock 9
fi

# A virtual environment holds absolute paths and one interpreter: moved, or made for another one, it is of no use.
place="$PWD $("$python" -c 'import platform, sys; print(sys.implementation.cache_tag, platform.machine())')"
if ! { [ -e .venv/place ] && [ "$(cat .venv/place)" = "$place" ] && .venv/bin/python -c 'import pip' 2>/dev/null; }; then
    "$python" -m ensurepip --version >/dev/null 2>&1 || tools/system.sh python3-venv
    echo "setup: making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || fail "'$python' cannot make a virtual environment; Debian has that in the package python3-venv."
    echo "$place" >.venv/place
fi

pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }

changed=
for lock in "${locks[@]}"; do
    stamp=.venv/installed-$lock
    sum=$(cksum <"requirements/$lock.txt")
    if [ ! -e "$stamp" ] || [ "$(cat "$stamp")" != "$sum" ]; then
        echo "setup: installing requirements/$lock.txt"
        # --no-deps: the lock is whole. What it names beyond need on some Python version does no harm there.
        pip install --quiet --require-hashes --no-deps -r "requirements/$lock.txt"
        echo "$sum" >"$stamp"
        changed=yes
    fi
done

sum=$(cksum <pyproject.toml)
if [ ! -e .venv/installed-project ] || [ "$(cat .venv/installed-project)" != "$sum" ]; then
    echo "setup: installing the project itself, to be edited in place"
    # Built with the locked builder of build.txt, and so without pip's isolated, unlocked one.
    pip install --quiet --no-deps --no-build-isolation --editable .
    echo "$sum" >.venv/installed-project
    changed=yes
fi
[ -z "$changed" ] || pip check >/dev/null || fail "The locks do not fit together:" "$(pip check)"
