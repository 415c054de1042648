#!/usr/bin/env bash
# Makes the model call a tool through both APIs, and shows the calls that the server parsed.
set -euo pipefail
# shellcheck source=scripts/test/server.sh
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

SCHEMA='{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
MESSAGES='[{"role": "user", "content": "What is the weather in Paris? Use the tool."}]'
ABOUT='"name": "get_weather", "description": "The weather in a city, now."'

# show TITLE: prints the calls in $FOLDER/calls.json, and fails unless they match the schema.
show() {
  say "$1:"
  "$PYTHON" -I - "$FOLDER/calls.json" <<'END' || fail "$1: the model made no usable call of get_weather"
import json, sys
calls = json.load(open(sys.argv[1]))
print(json.dumps(calls, indent=2))
if not calls:
    sys.exit("No tool call in the answer.")
for call in calls:
    city = call["arguments"].get("city")
    if call["name"] != "get_weather" or not isinstance(city, str):
        sys.exit(f"Expected a call of get_weather with the text \"city\", found {json.dumps(call)}")
END
}

ask /v1/chat/completions "{\"messages\": $MESSAGES, \"temperature\": 0, \"max_tokens\": 128, \"tool_choice\": \"required\",
  \"tools\": [{\"type\": \"function\", \"function\": {$ABOUT, \"parameters\": $SCHEMA}}]}" openai
"$PYTHON" -I - "$FOLDER/openai.json" >"$FOLDER/calls.json" <<'END' || fail "the answer cannot be read: $(cat "$FOLDER/openai.json")"
import json, sys
calls = json.load(open(sys.argv[1]))["choices"][0]["message"].get("tool_calls") or []
functions = [call["function"] for call in calls]
print(json.dumps([{"name": f["name"], "arguments": json.loads(f["arguments"])} for f in functions]))
END
show "OpenAI API, tool_calls"

ask /v1/messages "{\"model\": \"default\", \"messages\": $MESSAGES, \"temperature\": 0, \"max_tokens\": 128,
  \"tool_choice\": {\"type\": \"any\"}, \"tools\": [{$ABOUT, \"input_schema\": $SCHEMA}]}" anthropic
"$PYTHON" -I - "$FOLDER/anthropic.json" >"$FOLDER/calls.json" <<'END' || fail "the answer cannot be read: $(cat "$FOLDER/anthropic.json")"
import json, sys
blocks = json.load(open(sys.argv[1]))["content"]
calls = [block for block in blocks if block["type"] == "tool_use"]
print(json.dumps([{"name": call["name"], "arguments": call["input"]} for call in calls]))
END
show "Anthropic API, tool_use"
printf '\342\234\223 Tool calling works in both APIs\n'
