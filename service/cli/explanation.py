"""Where two requests part: by field, and by token of the prompt."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from service.cli.exits import Exit, Failure
from service.cli.local_model import find_local_model
from service.errors import ServiceError
from service.explain import Difference, differences, first_token_difference
from service.generation import GenerationRequest, SamplingParams
from service.models.errors import ModelError
from service.normalize import normalize
from service.settings import Settings

ANTHROPIC_KEYS = {"system", "thinking", "stop_sequences", "output_config", "context_management"}
ANTHROPIC_BLOCKS = {"tool_use", "tool_result", "thinking"}


def read_request(path: Path) -> GenerationRequest:
    """The request in a file, as both caches see it: a body of either API, or a trace."""
    from service.dialects.anthropic_messages import AnthropicMessages
    from service.dialects.openai_chat import OpenAIChat

    try:
        document = msgspec.json.decode(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise Failure(Exit.USAGE, f"{path}: expected the JSON of a request, found something else: {exc}") from None
    body, is_anthropic = _body(document)
    dialect = AnthropicMessages() if is_anthropic else OpenAIChat()
    try:
        return normalize(dialect.decode(json.dumps(body).encode(), SamplingParams()).request)
    except ServiceError as exc:
        raise Failure(Exit.USAGE, f"{path}: {exc}") from None


def explain_requests(
    a: GenerationRequest, b: GenerationRequest, settings: Settings | None, *, show_all: bool = False
) -> str:
    """For people. With `settings`, the prompts' tokens are compared by the configured model's tokenizer."""
    found = list(differences(a, b))
    if not found:
        return "The two requests are the same for both caches: one key, one prompt."
    shown = found if show_all else found[:1]
    lines = [f"They part in {len(found)} place{'s' if len(found) > 1 else ''}, so their response-cache keys differ."]
    lines += [("First: " if i == 0 else "Then:  ") + _indented(difference) for i, difference in enumerate(shown)]
    if settings is not None:
        lines.append(_by_token(a, b, settings))
    return "\n".join(lines)


class _Turn(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None


class _Shape(msgspec.Struct):
    """As much of a body as shows whose API it is of."""

    messages: list[_Turn] = []
    tools: list[dict[str, Any]] = []


def _body(document: Any) -> tuple[Any, bool]:
    """The body, and whether it is Anthropic's: a trace names its path; a body shows it by what only Anthropic has."""
    if isinstance(document, dict) and isinstance(trace := document.get("request"), dict) and "path" in trace:
        return trace.get("body"), "/messages" in str(trace["path"])
    try:
        shape = msgspec.convert(document, _Shape)
    except msgspec.ValidationError:  # no request: the dialect says what is wrong
        return document, False
    kinds = {block.get("type") for turn in shape.messages for block in turn.content or () if isinstance(block, dict)}
    return document, bool(
        ANTHROPIC_KEYS & document.keys()
        or ANTHROPIC_BLOCKS & kinds
        or any("input_schema" in tool for tool in shape.tools)
    )


def _by_token(a: GenerationRequest, b: GenerationRequest, settings: Settings) -> str:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns that PyTorch is missing; nothing here needs it
    from service.executor.prompt_tokens import load_renderer

    folder = find_local_model(settings)
    if folder is None or not folder.is_dir():
        return f"Tokens are not compared: {settings.model or 'the demo model'} is not on this machine."
    try:
        renderer = load_renderer(folder, context_length=2**31)
        left, right = (renderer.render(request).tokens for request in (a, b))
    except (ServiceError, ModelError, OSError, ValueError) as exc:
        return f"Tokens are not compared: {exc}"
    at = first_token_difference(left, right)
    if at is None:
        return f"Their prompts are the same {len(left)} tokens."
    return (
        f"Their prompts share the first {at} tokens, of {len(left)} and {len(right)}: "
        "that much the prefix cache can reuse."
    )


def _indented(difference: Difference) -> str:
    return str(difference).replace("\n", "\n       ")
