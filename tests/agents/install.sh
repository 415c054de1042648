#!/usr/bin/env bash
# Installs the coding agents that the tests run into tests/.cache/agents, unless they are there.
# Usage: tests/agents/install.sh [NAME...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

declare -A packages=(
    [claude]=@anthropic-ai/claude-code@2.1.332
    [codex]=@openai/codex@0.171.0
    [opencode]=opencode-ai@1.18.33
    [qwen]=@qwen-code/qwen-code@0.15.10
    [pi]=@mariozechner/pi-coding-agent@0.73.1
    [cline]=cline@3.0.65
    [copilot]=@github/copilot@1.0.102
    [cn]=@continuedev/cli@1.5.47
)

if ! command -v npm >/dev/null; then
    echo "npm is not installed, and the agents need it (apt-get install npm)." >&2
    exit 1
fi
for name in "${@:-${!packages[@]}}"; do
    folder=.cache/agents/$name
    if [ -e "$folder" ]; then continue; fi
    echo "Installing ${packages[$name]} into tests/$folder"
    mkdir -p "$folder.partial"
    npm install --prefix "$folder.partial" --no-audit --no-fund --no-update-notifier --loglevel=error "${packages[$name]}"
    mv "$folder.partial" "$folder"
done
