#!/usr/bin/env bash
# Runs the named parts (lint, python, js), each to its end whatever the others did; fails if one did.
#
# `tools/check.sh PART... [-- ARG...]`: what comes after `--` goes to pytest. TASKWIRE_TEST_WORKERS (2) is the number of
# test processes, TASKWIRE_TEST_TIMEOUT_SCALE (1) stretches every time limit on a slow machine. With CI=true a test whose
# PostgreSQL, Redis, Chromium or Node is missing fails; otherwise it is skipped and says what to install.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scale=${TASKWIRE_TEST_TIMEOUT_SCALE:-1}
failed=()

title() { printf '\n== %s\n' "$1"; }
step() {
    title "$1"
    shift
    "$@" || failed+=("$*")
}

lint() {
    step "ruff check" .venv/bin/python -m ruff check
    step "ruff format --check" .venv/bin/python -m ruff format --check
    step "mypy --strict" .venv/bin/python -m mypy
    step "import-linter" .venv/bin/lint-imports --no-cache --no-logo
}

python() {
    step "pytest" .venv/bin/python -m pytest -n "${TASKWIRE_TEST_WORKERS:-2}" --dist worksteal "${arguments[@]}"
}

js() {
    if [ -e node_modules/.installed ]; then
        limit=$(awk "BEGIN {print int(120000 * $scale)}") # milliseconds for each test
        step "node --test" node --test --test-reporter=spec --test-timeout="$limit" tests/js/*.test.mjs
    else
        title "node --test: skipped, for want of what is said above"
        [ "${CI:-}" != true ] || failed+=("node --test: skipped")
    fi
}

parts=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
    lint | python | js) parts+=("$1") ;;
    *)
        echo "usage: tools/check.sh {lint|python|js}... [-- PYTEST ARGUMENT...]" >&2
        exit 2
        ;;
    esac
    shift
done
arguments=("${@:2}")

tools/setup.sh dev || exit 1
if [[ ${parts[*]} = *python* || ${parts[*]} = *js* ]]; then
    # Where these fail they say why, and the tests concerned say it again.
    tools/system.sh
    tools/node.sh
fi
for part in "${parts[@]}"; do "$part"; done

if [ ${#failed[@]} -gt 0 ]; then
    title "FAILED"
    printf '%s\n' "${failed[@]}"
    exit 1
fi
