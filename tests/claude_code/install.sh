#!/usr/bin/env bash
# Installs the version of Claude Code that the tests use into tests/.cache, unless it is there.
# Usage: tests/claude_code/install.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=2.1.197
folder=.cache/claude-code-$version

if compgen -G "$folder/node_modules/@anthropic-ai/claude-code-*/claude" >/dev/null; then
    exit 0
fi
if ! command -v npm >/dev/null; then
    echo "npm is not installed, and Claude Code needs it (apt-get install npm)." >&2
    exit 1
fi
echo "Installing Claude Code $version into tests/$folder"
# The program is an optional package for this platform. Install scripts are off: they would download more.
mkdir -p "$folder.partial"
npm install --prefix "$folder.partial" --ignore-scripts --include=optional --no-audit --no-fund --no-update-notifier \
    --loglevel=error "@anthropic-ai/claude-code@$version"
rm -rf "$folder"
mv "$folder.partial" "$folder"
