"""Request bodies of made-up words, in the sizes and shapes that clients send."""

import random
from typing import Any

TEXT = (
    "the value of each file must name one folder path before any change is made and then report what was found "
    "when a long command runs write its output to disk read only those lines that matter never guess ask first"
)
AGENT_TOOLS = 24
SYSTEM_WORDS = 2_000
DESCRIPTION_WORDS = 350
PROPERTY_WORDS = 15


def small_chat(text: str = "What is the capital of France?") -> dict[str, Any]:
    """The body has about 120 bytes."""
    return {"model": "default", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 64}


def story(number: int, tokens: int, *, stream: bool = False) -> dict[str, Any]:
    """Prompts with different numbers differ from their first words on, so a prefix cache cannot help."""
    return {
        "model": "default_model",
        "messages": [
            {"role": "system", "content": f"{number} is the number of this session. You tell stories."},
            {"role": "user", "content": f"Write a very long story about {number} ships and what became of them."},
        ],
        "temperature": 0,
        "max_tokens": tokens,
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    }


def long_prompt(tokens: int) -> dict[str, Any]:
    """The prompt has at least `tokens` tokens, one a word."""
    text = prose(random.Random(tokens), tokens)  # noqa: S311
    return {"model": "default_model", "messages": [{"role": "user", "content": text}], "max_tokens": 1}


def agent_messages(*, stream: bool) -> dict[str, Any]:
    """A coding agent sends a body like this first: 24 tools and a long system prompt, about 76 KB."""
    words = random.Random(24)  # noqa: S311  (the same text every time; nothing depends on its being unforeseeable)
    return {
        "model": "claude-benchmark",
        "max_tokens": 64_000,
        "stream": stream,
        "thinking": {"type": "adaptive"},
        "metadata": {"user_id": '{"session_id": "00000000-0000-0000-0000-000000000000"}'},
        "system": [
            {"type": "text", "text": "You are a coding agent."},
            {"type": "text", "text": prose(words, SYSTEM_WORDS), "cache_control": {"type": "ephemeral"}},
        ],
        "tools": [_tool(words, number) for number in range(AGENT_TOOLS)],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Explain in two sentences what this project does."}]}
        ],
    }


def prose(words: random.Random, count: int) -> str:
    return " ".join(words.choices(TEXT.split(), k=count))


def _tool(words: random.Random, number: int) -> dict[str, Any]:
    properties: dict[str, Any] = {
        f"argument_{i}": {"type": kind, "description": prose(words, PROPERTY_WORDS)}
        for i, kind in enumerate(("string", "integer", "boolean", "string"))
    }
    properties["mode"] = {"type": "string", "enum": ["read", "write", "list"], "description": prose(words, 8)}
    properties["items"] = {
        "type": "array",
        "items": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    }
    return {
        "name": f"tool_{number}",
        "description": prose(words, DESCRIPTION_WORDS),
        "input_schema": {
            "type": "object",
            "properties": properties,
            "required": ["argument_0"],
            "additionalProperties": False,
        },
    }
