import json
from typing import Any

import litellm
from tools import QUESTION, TIMES, count, save

TOOLS = {"save": save, "count": count}
OFFERED = [
    {"type": "function", "function": {"name": "save", "parameters": {"properties": {"text": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "count"}},
]


def answer() -> str:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    while True:
        message = litellm.completion(model="openai/gpt-5", messages=messages, tools=OFFERED).choices[0].message
        if not message.tool_calls:
            return str(message.content)
        messages.append(message)
        for call in message.tool_calls:
            result = TOOLS[call.function.name](**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


for _ in range(TIMES):
    print(answer())
