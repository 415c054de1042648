#!/usr/bin/env bash
# Installs the test suites of the official SDKs into tests/.cache/suites, unless they are there: their source archives
# of the versions in constraints.txt, and an environment with what they import.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=.cache/suites
if [ -e "$folder/installed" ]; then exit 0; fi
echo "Installing the suites of the SDKs into tests/$folder"
python3 -m venv "$folder"
pip() { "$folder/bin/pip" --quiet --disable-pip-version-check "$@"; }
pip install --no-compile --constraint ../constraints.txt 'anthropic[aiohttp]' 'openai[aiohttp]' pytest pytest-asyncio \
    pytest-xdist dirty-equals 'http-snapshot[httpx]' httpx2 inline-snapshot opentelemetry-sdk respx rich time-machine trio
for package in anthropic openai; do
    pip download --no-deps --no-binary "$package" --constraint ../constraints.txt --dest "$folder" "$package"
    mkdir -p "$folder/$package"
    tar --extract --gzip --strip-components=1 --directory "$folder/$package" --file "$folder/$package"-*.tar.gz
    # The suites import the installed package, not the one beside them.
    rm -r "$folder/$package/src"
done
touch "$folder/installed"
