#!/usr/bin/env bash
# Makes the Python environment that runs anyclaude. Running it again repeats only the steps that are needed.
#
#   VENV    the folder of the environment  (default: ~/.venv-mlx)
#   PYTHON  the Python to make it with     (default: the first of version 3.11 or newer that is found)
#   EXTRAS  optional parts to install, comma-separated: redis, test, bench  (default: none)
#
# An environment keeps the extras that it has, whatever EXTRAS says.
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

installed_extras() { sed -n '1s/^extras=\([^ ]*\) .*/\1/p' "$venv/.anyclaude-setup" 2>/dev/null || true; }

# Prints the names of both lists, each once.
joined() {
    local all=$1 name
    for name in ${2//,/ }; do
        case ",$all," in
            *",$name,"*) ;;
            *) all=${all:+$all,}$name ;;
        esac
    done
    say "$all"
}

# Everything that the environment depends on. If any of it changes, the packages are installed again.
inputs() {
    say "extras=$extras project=$project python=${PYTHON:-}"
    cat "$project/pyproject.toml" "$project/constraints.txt" "$project/scripts/setup-vllm-mlx-venv.sh"
}

is_up_to_date() {
    [ -x "$venv/bin/python" ] && [ -x "$venv/bin/anyclaude" ] && inputs | cmp -s - "$venv/.anyclaude-setup"
}

# With -I, Python imports nothing from the folder where this runs.
is_suitable() { "$1" -I -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

version_of() { "$1" -I -c 'import sys; print(sys.version)'; }

# Sets the variable `python`.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_suitable "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of 3.11 or newer."
        python=$PYTHON
        return
    fi
    # `python3` is last: on a Mac without Xcode's tools it opens a dialog.
    for python in python3.13 python3.12 python3.14 python3.11 "$(uv python find '>=3.11' 2>/dev/null || true)" python3; do
        if command -v "$python" >/dev/null && is_suitable "$python"; then return; fi
    done
    fail "no Python of 3.11 or newer was found. Install one, or name it: PYTHON=/path/to/python3 $0"
}

# MLX has packages for Apple silicon and macOS 14 only. pip would find no matching distribution.
check_mac() {
    local version
    [ "$(uname)" = Darwin ] || return 0
    begin "looking at this Mac"
    [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || true)" != 1 ] ||
        fail "this shell runs under Rosetta. Open a terminal for Apple silicon, and use a Python for arm64."
    [ "$(uname -m)" = arm64 ] || fail "MLX needs a Mac with Apple silicon; this one has $(uname -m)."
    version=$(sw_vers -productVersion)
    [ "${version%%.*}" -ge 14 ] || fail "MLX needs macOS 14 or newer; this is $version."
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
    "$python" -I -m venv --clear "$venv" ||
        fail "$python cannot make environments (on Debian and Ubuntu: apt-get install python3-venv)."
}

install_packages() {
    begin "installing anyclaude${extras:+[$extras]} and its dependencies, in the versions of constraints.txt (about a minute)"
    local quiet=()
    [ -t 1 ] || quiet=(--quiet)
    "$venv/bin/python" -I -m pip install --disable-pip-version-check ${quiet[@]+"${quiet[@]}"} \
        --constraint "$project/constraints.txt" --editable "$project${extras:+[$extras]}" ||
        fail "pip could not install (its message is above). Check the network and \`pip config list\`, then run this again."
}

# True if the service finds OpenBLAS. Prints what it found. Only Linux needs OpenBLAS.
has_openblas() {
    [ "$(uname)" = Linux ] || return 0
    "$venv/bin/python" -I -c '
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
        say "skipped: this needs apt-get, and either root or a sudo that asks for no password"
        return
    fi
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends libopenblas0)
    if as_root "${install[@]}" >/dev/null 2>&1; then return; fi
    if ! { as_root apt-get update --quiet && as_root "${install[@]}"; } >/dev/null; then
        say "apt-get could not install it (its message is above)"
    fi
}

path_advice() {
    local found folder
    found=$(command -v anyclaude || true)
    [ -z "$found" ] || ! [ "$found" -ef "$venv/bin/anyclaude" ] || return 0
    folder=$(cd "$venv/bin" && pwd)
    say "\`anyclaude\` is not on your PATH yet. For this shell: . $folder/activate"
    say "For every shell, if ~/.local/bin is on your PATH: ln -s $folder/anyclaude ~/.local/bin/anyclaude"
}

extras=$(joined "$(installed_extras)" "$extras")
if is_up_to_date; then
    say "$venv is up to date."
    has_openblas || true
    exit 0
fi
check_mac
make_environment
install_packages
begin "looking for OpenBLAS"
if ! has_openblas; then
    install_openblas
    has_openblas || say "warning: continuing without OpenBLAS." >&2
fi
begin "finishing"
inputs >"$venv/.anyclaude-setup.new"
mv "$venv/.anyclaude-setup.new" "$venv/.anyclaude-setup"
say "Done. Start the server with: $venv/bin/anyclaude serve"
path_advice
