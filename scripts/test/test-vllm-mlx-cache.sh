#!/usr/bin/env bash
# Sends a request twice. The second answer must come from the response cache, and faster.
set -euo pipefail
# shellcheck source=scripts/test/server.sh
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

# A new question, even if the server keeps its answers on disk.
BODY="{\"messages\": [{\"role\": \"user\", \"content\": \"Question $$-$(date +%s): what is the capital of France?\"}],
       \"temperature\": 0, \"max_tokens\": 32}"

ask /v1/chat/completions "$BODY" uncached
ask /v1/chat/completions "$BODY" cached
ask /v1/chat/completions "$BODY" again
# Keep the faster of two hits, because the machine may have been busy during the first.
if "$PYTHON" -I -c 'import sys; sys.exit(float(sys.argv[1]) >= float(sys.argv[2]))' \
  "$(cat "$FOLDER/again.time")" "$(cat "$FOLDER/cached.time")"; then
  mv "$FOLDER/again.time" "$FOLDER/cached.time"
fi

say "Uncached: $(cat "$FOLDER/uncached.time") s  ($(outcome uncached))"
say "Cached:   $(cat "$FOLDER/cached.time") s  ($(outcome cached))"

case "$(outcome uncached)" in
  *hit*) fail "the first answer is a hit already, though nobody can have asked this before" ;;
esac
case "$(outcome cached)" in
  *hit*) ;;
  *) fail "the second answer is no hit. Is cachePolicy off ('anyclaude config' tells)?" ;;
esac
TEXT='d["choices"][0]["message"]["content"]'
[ "$(field "$FOLDER/uncached.json" "$TEXT")" = "$(field "$FOLDER/cached.json" "$TEXT")" ] ||
  fail "the two answers differ: $(cat "$FOLDER/uncached.json") and $(cat "$FOLDER/cached.json")"
SPEEDUP="$("$PYTHON" -I -c 'import sys; print(f"{float(sys.argv[1]) / max(float(sys.argv[2]), 1e-6):.1f}")' \
  "$(cat "$FOLDER/uncached.time")" "$(cat "$FOLDER/cached.time")")"
"$PYTHON" -I -c 'import sys; sys.exit(float(sys.argv[1]) <= 1)' "$SPEEDUP" ||
  fail "the cached answer was not faster (${SPEEDUP}x)"
say "Answer:   $(field "$FOLDER/cached.json" "$TEXT")"
printf '\342\234\223 The response cache works: %sx faster\n' "$SPEEDUP"
