#!/usr/bin/env bash
# Installs the Python frameworks, and LiteLLM's proxy, that the tests run into tests/.cache, unless they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# install FOLDER PACKAGE... installs into an environment of its own.
install() {
    local folder=.cache/$1
    if [ -e "$folder/installed" ]; then return; fi
    echo "Installing $1 into tests/$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
    touch "$folder/installed"
}

install frameworks \
    langchain==1.5.2 langchain-openai==1.7.4 litellm==1.110.2 openai-agents==0.24.0 'pydantic-ai-slim[openai]==2.68.0'
install litellm_proxy --no-deps --requirement clients/frameworks/litellm_proxy.txt
