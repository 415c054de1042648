#!/usr/bin/env bash
# Installs the Claude Code that the tests run into tests/.cache, which outlives a run. Does nothing when it is there.
# Usage: tests/claude_code/install.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=2.1.197
folder=.cache/claude-code-$version

if compgen -G "$folder/node_modules/@anthropic-ai/claude-code-*/claude" >/dev/null; then
    exit 0
fi
if ! command -v npm >/dev/null; then
    echo "npm is not installed, and Claude Code comes with it (apt-get install npm)." >&2
    exit 1
fi
echo "Installing Claude Code $version into tests/$folder"
# The program itself comes as the optional package of this platform; the scripts of packages would fetch more.
mkdir -p "$folder.partial"
npm install --prefix "$folder.partial" --ignore-scripts --include=optional --no-audit --no-fund --no-update-notifier \
    --loglevel=error "@anthropic-ai/claude-code@$version"
rm -rf "$folder"
mv "$folder.partial" "$folder"
