#!/usr/bin/env bash
# Installs the Python frameworks that the tests run into tests/.cache/frameworks, unless they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=.cache/frameworks
if [ -e "$folder/installed" ]; then exit 0; fi
echo "Installing frameworks into tests/$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    langchain==1.5.2 langchain-openai==1.7.4 litellm==1.110.2 openai-agents==0.24.0 'pydantic-ai-slim[openai]==2.68.0'
touch "$folder/installed"
