"""An MCP server with one tool, on standard input and output."""

import json
import sys
from typing import Any

WEIGH = {
    "name": "weigh",
    "description": "Weighs a fruit.",
    "inputSchema": {"type": "object", "properties": {"fruit": {"type": "string"}}},
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    match method:
        case "initialize":
            server = {"name": "fruit", "version": "1"}
            return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": server}
        case "tools/list":
            return {"tools": [WEIGH]}
        case "tools/call":
            return {"content": [{"type": "text", "text": f"{params['arguments']['fruit']}: 300 g"}]}
    return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = answer(message["method"], message.get("params", {}))
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
        sys.stdout.flush()
