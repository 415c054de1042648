#!/usr/bin/env bash
# Installs axe-core, which looks for barriers in a page, into tests/.cache/axe-core, unless it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=.cache/axe-core
if [ -e "$folder" ]; then exit 0; fi
if ! command -v npm >/dev/null; then
    echo "npm is not installed, and axe-core needs it (apt-get install npm)." >&2
    exit 1
fi
mkdir -p "$folder.partial"
npm install --prefix "$folder.partial" --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error \
    axe-core@4.14.1
mv "$folder.partial" "$folder"
