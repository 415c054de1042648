# shellcheck shell=bash
# Finds the server to test: the one at VLLM_MLX_URL, or one that it starts and stops at the end. Source this file.
# Sets ROOT (http://host:port), and defines `ask`, `field`, `say` and `fail`.

ROOT="${VLLM_MLX_URL:-http://localhost:8081/v1}"
ROOT="${ROOT%/}"
ROOT="${ROOT%/v1}"
API_KEY="${ANYCLAUDE_API_KEY:-vllm-mlx}"
START_SECONDS="${START_SECONDS:-600}"
FOLDER="$(mktemp -d)"
STARTED=""

say() { printf '%s\n' "$*"; }

fail() {
  printf '\342\234\227 FAILED: %s\n' "$*" >&2
  exit 1
}

finish() {
  if [ -n "$STARTED" ]; then
    kill "$STARTED" 2>/dev/null || true
    wait "$STARTED" 2>/dev/null || true
  fi
  rm -rf "$FOLDER"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# field FILE EXPRESSION: prints a Python expression over the JSON document `d` of the file, or nothing if it fails.
field() {
  "$PYTHON" -I - "$1" "$2" <<'END'
import json, sys
try:
    d = json.load(open(sys.argv[1]))
    print(eval(sys.argv[2]))
except (ValueError, LookupError, TypeError):
    pass
END
}

find_program() {
  local here
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
  for candidate in "$here/.venv/bin/$1" "$HOME/.venv-mlx/bin/$1" "$(command -v "$1" || true)"; do
    if [ -x "$candidate" ]; then
      printf '%s' "$candidate"
      return
    fi
  done
}

state() {
  rm -f "$FOLDER/health"
  curl -s --max-time 5 -o "$FOLDER/health" "$ROOT/health" || true
  [ -s "$FOLDER/health" ] || { echo none; return; }
  field "$FOLDER/health" 'd["status"]' | grep . || echo stranger
}

start_server() {
  local program
  program="$(find_program anyclaude)"
  [ -n "$program" ] || fail "no server at $ROOT, and no anyclaude to start one. Run: make setup"
  case "$ROOT" in
    http://localhost:* | http://127.*:*) ;;
    *) fail "no server at $ROOT, and it is not on this machine. Start it there, or unset VLLM_MLX_URL." ;;
  esac
  say "No server at $ROOT: starting one (anyclaude serve)"
  VLLM_MLX_URL="$ROOT/v1" "$program" serve >"$FOLDER/log" 2>&1 &
  STARTED=$!
}

wait_until_healthy() {
  local deadline=$((SECONDS + START_SECONDS)) now
  while true; do
    now="$(state)"
    case "$now" in
      healthy) return ;;
      stranger) fail "what answers at $ROOT is not anyclaude. Stop it, or set VLLM_MLX_URL to another port." ;;
      unhealthy) fail "the server at $ROOT is unhealthy: $(cat "$FOLDER/health")" ;;
    esac
    if [ -n "$STARTED" ] && ! kill -0 "$STARTED" 2>/dev/null; then
      cat "$FOLDER/log" >&2
      fail "the server ended while it was starting"
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      [ -z "$STARTED" ] || tail -n 20 "$FOLDER/log" >&2
      fail "the server at $ROOT was not healthy within $START_SECONDS s"
    fi
    sleep 0.2
  done
}

# ask PATH BODY NAME: posts JSON. Writes $FOLDER/NAME.json, $FOLDER/NAME.headers, and the seconds to $FOLDER/NAME.time.
ask() {
  local status
  status="$(curl -sS --max-time 600 -o "$FOLDER/$3.json" -D "$FOLDER/$3.headers" \
    -H "Authorization: Bearer $API_KEY" -H 'Content-Type: application/json' \
    -w '%{http_code} %{time_total}' -d "$2" "$ROOT$1")" || fail "no answer from $ROOT$1"
  printf '%s' "${status#* }" >"$FOLDER/$3.time"
  [ "${status%% *}" = 200 ] || fail "$1 answered ${status%% *}: $(cat "$FOLDER/$3.json")"
}

# outcome NAME: prints the Cache-Status header.
outcome() {
  tr -d '\r' <"$FOLDER/$1.headers" | sed -n 's/^[Cc]ache-[Ss]tatus: *//p'
}

PYTHON="$(find_program python3)"
[ -n "$PYTHON" ] || fail "python3 is needed to read JSON"
command -v curl >/dev/null || fail "curl is needed"
[ "$(state)" != none ] || start_server
wait_until_healthy
say "Server: $ROOT, model $(field "$FOLDER/health" 'd["model"]')"
