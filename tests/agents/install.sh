#!/usr/bin/env bash
# Installs the coding agents that the tests run into tests/.cache/agents, unless they are there.
# Usage: tests/agents/install.sh [NAME...]; without names, all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Prints the npm package of an agent. Not a table: bash 3.2 of macOS has none.
package_of() {
    case $1 in
        claude) echo @anthropic-ai/claude-code@2.1.332 ;;
        codex) echo @openai/codex@0.171.0 ;;
        opencode) echo opencode-ai@1.18.33 ;;
        qwen) echo @qwen-code/qwen-code@0.15.10 ;;
        pi) echo @mariozechner/pi-coding-agent@0.73.1 ;;
        cline) echo cline@3.0.65 ;;
        copilot) echo @github/copilot@1.0.102 ;;
        kilo) echo @kilocode/cli@7.7.7 ;;
        cn) echo @continuedev/cli@1.5.47 ;;
        *) echo "There is no agent $1." >&2 && return 1 ;;
    esac
}

install_aider() {
    local folder=.cache/agents/aider
    if [ -e "$folder/installed" ]; then return; fi
    echo "Installing Aider into tests/$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --no-compile --disable-pip-version-check aider-chat==0.86.2
    touch "$folder/installed"
}

[ $# -gt 0 ] || set -- claude codex opencode qwen pi cline copilot kilo cn aider
if ! command -v npm >/dev/null; then
    echo "npm is not installed, and the agents need it (apt-get install npm)." >&2
    exit 1
fi
for name in "$@"; do
    if [ "$name" = aider ]; then
        install_aider
        continue
    fi
    package=$(package_of "$name")
    folder=.cache/agents/$name
    if [ -e "$folder" ]; then continue; fi
    echo "Installing $package into tests/$folder"
    mkdir -p "$folder.partial"
    npm install --prefix "$folder.partial" --no-audit --no-fund --no-update-notifier --loglevel=error "$package"
    mv "$folder.partial" "$folder"
done
