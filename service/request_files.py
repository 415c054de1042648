"""Reads requests from files: bodies of either API, or traces."""

from pathlib import Path
from typing import Any

import msgspec

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.openai_chat import OpenAIChat
from service.generation import GenerationRequest, SamplingParams
from service.storage import open_regular

ANTHROPIC_KEYS = {"system", "thinking", "stop_sequences", "output_config", "context_management"}
ANTHROPIC_BLOCKS = {"tool_use", "tool_result", "thinking"}


class NoRequest(ValueError):
    """The message names the file."""


class RequestFile(msgspec.Struct, frozen=True):
    """`body` is any JSON. Only `decode` checks it."""

    body: Any
    anthropic: bool

    @property
    def path(self) -> str:
        return "/v1/messages" if self.anthropic else "/v1/chat/completions"

    def decode(self, defaults: SamplingParams) -> GenerationRequest:
        """Raises `ServiceError` for an invalid body."""
        dialect = AnthropicMessages() if self.anthropic else OpenAIChat()
        return dialect.decode(msgspec.json.encode(self.body), defaults).request


class _Turn(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None


class _Shape(msgspec.Struct):
    messages: list[_Turn] = []
    tools: list[dict[str, Any]] = []


def read_request_file(path: Path) -> RequestFile:
    try:
        with open_regular(path) as file:
            document = msgspec.json.decode(file.read())
    except (ValueError, RecursionError) as exc:
        raise NoRequest(f"{path}: expected the JSON of a request, found something else: {exc}") from None
    return RequestFile(*_body(document, path))


def _body(document: Any, path: Path) -> tuple[Any, bool]:
    """Returns the body and whether it is Anthropic's. A trace has a path; a body has fields or blocks that only
    Anthropic has."""
    if isinstance(document, dict) and isinstance(trace := document.get("request"), dict) and "path" in trace:
        if trace.get("method", "POST") != "POST":
            raise NoRequest(f"{path}: a trace of {trace['method']} {trace['path']}, which asks for no generation.")
        return trace.get("body"), "/messages" in str(trace["path"])
    try:
        shape = msgspec.convert(document, _Shape)
    except msgspec.ValidationError:  # the dialect will describe the problem
        return document, False
    kinds = {block.get("type") for turn in shape.messages for block in turn.content or () if isinstance(block, dict)}
    return document, bool(
        ANTHROPIC_KEYS & document.keys()
        or ANTHROPIC_BLOCKS & kinds
        or any("input_schema" in tool for tool in shape.tools)
    )
