#!/usr/bin/env bash
# Brings node_modules in step with package-lock.json; quick when nothing has changed. Fails when Node or npm is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "node: Node.js 20 or later with npm is needed for the JavaScript tests, and is not installed." >&2
    exit 1
fi
node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || {
    echo "node: Node.js 20 or later is needed for the JavaScript tests, but this is $(node --version)." >&2
    exit 1
}

sum="$(cat package-lock.json package.json | cksum) $(node -p 'process.version')"
if [ ! -e node_modules/.installed ] || [ "$(cat node_modules/.installed)" != "$sum" ]; then
    echo "node: installing package-lock.json"
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    echo "$sum" >node_modules/.installed
fi
