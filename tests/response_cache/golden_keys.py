"""Digests of the prompts, the grammar and the key of 50 requests, which `KEY_VERSION` protects.

`python -m tests.response_cache.golden_keys` writes them anew, if `KEY_VERSION` was raised.
"""

import hashlib
import sys
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from service.generation import GenerationRequest, Message, ResponseFormat, SamplingParams, Tool, ToolCall, ToolChoice
from service.normalize import normalize
from service.response_cache.key import KEY_VERSION, RequestKeys
from service.tool_calling.grammar import answer_grammar, is_constrained
from tests.response_cache.prompts import WITHOUT_TOOLS, byte_renderer

FILE = Path(__file__).with_suffix(".json")

SCHEMA = {"type": "object", "properties": {"reason": {"type": "string"}, "answer": {"enum": [1, 2]}}}
SEARCH = Tool(name="search", description="Finds pages.", parameters=SCHEMA)
CALL = Message(role="assistant", reasoning="hm", tool_calls=(ToolCall("toolu_9", "search", '{ "answer": 1 }'),))

CONVERSATIONS: tuple[tuple[Message, ...], ...] = (
    (Message(role="user", content="What is the capital of France?"),),
    (Message(role="system", content="Be brief."), Message(role="user", content=" Grüße \U0001f600\n")),
    (
        Message(
            role="system", content="x-anthropic-billing-header: cc_version=2.1.197.1c0; cc_entrypoint=cli;\nBe brief."
        ),
        Message(role="user", content="Hi"),
        Message(role="system", content="Mind the tone."),
        Message(role="user", content="Again"),
    ),
    (
        Message(role="user", content="Look."),
        CALL,
        Message(role="tool", content="found", tool_call_id="toolu_9"),
    ),
    (
        Message(role="user", content="Look."),
        CALL,
        Message(role="tool", content="it failed", tool_call_id="toolu_9", is_error=True),
        Message(role="user", content="Why?"),
    ),
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"tools": (SEARCH,)},
    {"tools": (SEARCH, Tool(name="stop", strict=True)), "tool_choice": ToolChoice("required")},
    {"tools": (SEARCH,), "tool_choice": ToolChoice("none"), "parallel_tool_calls": False},
    {"response_format": ResponseFormat(kind="json_schema", schema=SCHEMA, name="answer", strict=True)},
    {"response_format": ResponseFormat(kind="json_object")},
    {"sampling": SamplingParams(temperature=0.7, top_p=0.9, seed=3, logit_bias=((5, -1.0),))},
    {"max_tokens": 7, "stop": ("b", "a", "b"), "n": 2, "logprobs": 3},
    {"thinking": "on", "template_arguments": {"effort": {"b": 1, "a": 2}}},
    {"caller": "c0ffee", "unread_fields": {"novel": "1"}},
)


def requests() -> list[GenerationRequest]:
    return [
        normalize(GenerationRequest(messages=messages, **options))
        for messages, options in product(CONVERSATIONS, OPTIONS)
    ]


class Golden(msgspec.Struct, frozen=True):
    key_version: int
    digests: list[str]


def measure() -> Golden:
    renderers, keys = (byte_renderer(), byte_renderer(WITHOUT_TOOLS)), RequestKeys()
    digests = []
    for request in requests():
        prompts = [list(renderer.render(request).tokens) for renderer in renderers]
        grammar = answer_grammar(request, "hermes", lambda text: [text], None) if is_constrained(request) else None
        made = msgspec.json.encode((prompts, grammar, keys.key("model", request)))
        digests.append(hashlib.sha256(made).hexdigest()[:16])
    return Golden(KEY_VERSION, digests)


def renew(file: Path, measured: Golden) -> None:
    """Raises SystemExit if the digests differ at the same version."""
    golden = msgspec.json.decode(file.read_bytes(), type=Golden)
    if golden.key_version == measured.key_version and golden.digests != measured.digests:
        sys.exit("The digests have changed. Raise KEY_VERSION in service/response_cache/key.py first.")
    file.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n")


if __name__ == "__main__":
    renew(FILE, measure())
