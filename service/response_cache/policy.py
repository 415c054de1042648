from collections.abc import Sequence
from typing import Any

import msgspec

from service.events import ChoiceFinished, Event, ToolCallAbandoned
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


def may_store(request: GenerationRequest, completion: Completion, events: Sequence[Event]) -> bool:
    """True if every choice is complete, not empty, and JSON where JSON is required. Only `events` show a broken
    call and the length of each choice."""
    return (
        len(completion.choices) == request.n
        and all(_is_whole(choice, request) for choice in completion.choices)
        and not _lacked_room(request, completion, events)
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


def _lacked_room(request: GenerationRequest, completion: Completion, events: Sequence[Event]) -> bool:
    """True if memory, the context or a loop ended a choice before `max_tokens`, or may have: a choice of unknown length
    has reached it for certain only if all have."""
    return any(
        not _is_full(event, request, completion)
        for event in events
        if isinstance(event, ChoiceFinished) and event.reason == "length"
    )


def _is_full(end: ChoiceFinished, request: GenerationRequest, completion: Completion) -> bool:
    if request.max_tokens is None:
        return False
    if end.tokens is None:
        return completion.usage.completion_tokens >= request.n * request.max_tokens
    return end.tokens >= request.max_tokens


def _is_json_object(text: str) -> bool:
    return _is_json(text, dict[str, msgspec.Raw])


def _is_json(text: str, kind: Any = msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
