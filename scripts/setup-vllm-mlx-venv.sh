#!/usr/bin/env bash
# Makes the Python environment that runs anyclaude. Run it again at any time: what is done is not done twice.
#
#   VENV    where to make it            (default: ~/.venv-mlx)
#   PYTHON  the Python to make it with  (default: the first of 3.11 or newer that is found)
#   EXTRAS  what to install besides the service, comma-separated: redis, test, bench  (default: nothing)
set -Eeuo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$HOME/.venv-mlx}
extras=${EXTRAS:-}
step="reading the options"

say() { printf '%s\n' "$*"; }
begin() {
    step=$1
    say "==> $step"
}
fail() {
    say "setup failed while $step: $*" >&2
    trap - ERR
    exit 1
}
trap 'fail "see the message above."' ERR

# What the environment was made from. Compared as a whole, so that any change of it counts.
inputs() {
    say "extras=$extras project=$project python=${PYTHON:-}"
    cat "$project/pyproject.toml" "$project/constraints.txt" "$project/scripts/setup-vllm-mlx-venv.sh"
}

is_up_to_date() {
    [ -x "$venv/bin/python" ] && [ -x "$venv/bin/anyclaude" ] && inputs | cmp -s - "$venv/.anyclaude-setup"
}

is_suitable() { "$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

version_of() { "$1" -c 'import sys; print(sys.version)'; }

# Sets `python`.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_suitable "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of 3.11 or newer."
        python=$PYTHON
        return
    fi
    for python in python3 python3.13 python3.12 python3.11 python3.14; do
        if is_suitable "$python"; then return; fi
    done
    fail "no Python of 3.11 or newer was found. Install one, or name it: PYTHON=/path/to/python3 $0"
}

make_environment() {
    begin "making the environment $venv"
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
        fail "$venv exists and is not a Python environment. Move it away, or choose another place with VENV."
    fi
    if is_suitable "$venv/bin/python"; then
        if [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$venv/bin/python")" ]; then
            return
        fi
    fi
    find_python
    "$python" -m venv --clear "$venv" ||
        fail "$python cannot make environments (on Debian and Ubuntu: apt-get install python3-venv)."
}

install_packages() {
    begin "installing anyclaude${extras:+[$extras]} and what it needs, in the versions of constraints.txt"
    local quiet=()
    [ -t 1 ] || quiet=(--quiet)
    "$venv/bin/python" -m pip install --disable-pip-version-check ${quiet[@]+"${quiet[@]}"} \
        --constraint "$project/constraints.txt" --editable "$project${extras:+[$extras]}" ||
        fail "pip could not install (its message is above). Check the network and \`pip config list\`, then run this again."
}

# Asks the service itself, and prints its answer. Only Linux needs it.
has_openblas() {
    [ "$(uname)" = Linux ] || return 0
    "$venv/bin/python" -c '
import sys
from service.models.blas import load_openblas
report = load_openblas()
print(report.detail)
sys.exit(not report.active)'
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

install_openblas() {
    begin "installing OpenBLAS with apt-get"
    if ! command -v apt-get >/dev/null || ! as_root true 2>/dev/null; then
        say "skipped: it takes apt-get, and root or a sudo that asks for no password"
        return
    fi
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends libopenblas0)
    if as_root "${install[@]}" >/dev/null 2>&1; then return; fi
    if ! { as_root apt-get update --quiet && as_root "${install[@]}"; } >/dev/null; then
        say "apt-get could not install it (its message is above)"
    fi
}

if is_up_to_date; then
    say "$venv is up to date."
    has_openblas || true
    exit 0
fi
make_environment
install_packages
begin "looking for OpenBLAS"
if ! has_openblas; then
    install_openblas
    has_openblas || say "warning: going on without it." >&2
fi
begin "finishing"
inputs >"$venv/.anyclaude-setup.new"
mv "$venv/.anyclaude-setup.new" "$venv/.anyclaude-setup"
say "Done. Start the server with: $venv/bin/anyclaude serve"
