"""The protocols that clients speak: each turns bytes into a `ClientRequest` and answers into bytes.

`base.py` is the interface. `openai_chat/` and `anthropic_messages/` implement it and never import each other; what
both need stands here: `json_body.py` (decode hostile JSON), `tool_definitions.py`, `sampling.py`, `sse.py` (framing).
A new protocol is a folder beside them.
"""
