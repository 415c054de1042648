#!/usr/bin/env bash
# Installs the Node packages that the tests run into tests/.cache/node, unless they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=.cache/node
if [ -e "$folder" ]; then exit 0; fi
if ! command -v npm >/dev/null; then
    echo "npm is not installed, and the Node packages need it (apt-get install npm)." >&2
    exit 1
fi
echo "Installing Node packages into tests/$folder"
mkdir -p "$folder.partial"
npm install --prefix "$folder.partial" --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error \
    ai@6.0.326 @ai-sdk/anthropic@3.0.140 @ai-sdk/openai@3.0.141 @anthropic-ai/sdk@1.14.0 openai@6.49.0 zod@4.6.7
mv "$folder.partial" "$folder"
