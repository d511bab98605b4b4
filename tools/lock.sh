#!/usr/bin/env bash
# Locks the newest allowed versions, with their hashes, into requirements/*.txt and package-lock.json.
#
# No index, address or path of this machine gets into a lock: such options and settings are left out or unset.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL
export CUSTOM_COMPILE_COMMAND="make lock"
python=$PWD/.venv/bin/python

(
    cd requirements # so that the notes on where a requirement comes from name the file alone
    for name in base build dev; do # in this order: dev.in is bound to the other two
        echo "lock: requirements/$name.txt"
        "$python" -m piptools compile --quiet --upgrade --resolver=backtracking --generate-hashes \
            --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
            --output-file "$name.txt" "$name.in"
    done
)

echo "lock: package-lock.json"
rm -f package-lock.json
npm install --package-lock-only --ignore-scripts --no-audit --no-fund --loglevel=error
