from collections.abc import Iterable
from typing import Any

import msgspec

from service.events import Event, ToolCallAbandoned
from service.generation import Choice, Completion, GenerationRequest, SamplingParams
from service.settings import CachePolicy


def may_look_up(request: GenerationRequest, policy: CachePolicy) -> bool:
    match policy:
        case "all":
            return True
        case "deterministic":
            return is_deterministic(request.sampling)
        case "off":
            return False


def is_deterministic(sampling: SamplingParams) -> bool:
    """True if the same request gives the same tokens."""
    return sampling.temperature == 0 or sampling.seed is not None


def may_store(request: GenerationRequest, completion: Completion, events: Iterable[Event]) -> bool:
    """True if every choice is complete, not empty, and JSON where JSON is required. Only `events` show a broken
    call."""
    return (
        len(completion.choices) == request.n
        and all(_is_whole(choice, request) for choice in completion.choices)
        and not _lacked_room(request, completion)
        and not any(isinstance(event, ToolCallAbandoned) for event in events)
    )


def _is_whole(choice: Choice, request: GenerationRequest) -> bool:
    if not choice.parts or (choice.finish_reason == "tool_calls" and not choice.tool_calls):
        return False
    if not all(_is_json_object(call.arguments) for call in choice.tool_calls):
        return False
    wanted = request.response_format
    if wanted is None or wanted.kind == "grammar" or choice.finish_reason != "stop" or choice.tool_calls:
        return True
    return _is_json_object(choice.text) if wanted.kind == "json_object" else _is_json(choice.text)


def _lacked_room(request: GenerationRequest, completion: Completion) -> bool:
    """True if memory or the context ended an answer before `max_tokens`."""
    cut = sum(choice.finish_reason == "length" for choice in completion.choices)
    return cut > 0 and (request.max_tokens is None or completion.usage.completion_tokens < cut * request.max_tokens)


def _is_json_object(text: str) -> bool:
    return _is_json(text, dict[str, msgspec.Raw])


def _is_json(text: str, kind: Any = msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
