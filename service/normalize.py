"""Removes meaningless differences between requests, for both caches.

- Claude Code's attribution line, with a checksum of the prompt, is removed.
- Calls have random ids; they are named by position.
- Claude Code sends tool results as they finish; they are sorted like their calls.
- Arguments of calls become compact JSON.
- Codex's random id before a command's output, and Qwen Code's number of an ended process behind it, are removed.
- Tool choice without tools, the order of stop strings, signs of zero and zero biases are dropped.

White space and dates stay, because Claude Code sends a conversation back unchanged.
"""

import math
import operator
import re
from collections import deque
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from itertools import groupby, repeat
from typing import Any

import msgspec

from service.generation import GenerationRequest, Message, SamplingParams, Tool, ToolCall, ToolChoice

# Claude Code 2.1 sends "x-anthropic-billing-header: cc_version=2.1.197.1c0; cc_entrypoint=cli; cch=00000;" as a block,
# which is a line here. The whole line must match: a prompt that merely begins with its name is content.
_ATTRIBUTION = re.compile(
    r"x-anthropic-billing-header:[ \t]*cc_version=[^;\n]*(?:;[ \t]*\w+=[^;\n]*)*;?[ \t]*(?:\n|\Z)", re.ASCII
)

# Codex 0.171 begins a command's output with "Chunk ID: 33850b\nWall time: 0.0312 seconds\n". The id is random.
_CHUNK_ID = re.compile(r"\AChunk ID: [0-9a-f]{6}\n(?=Wall time: [0-9.]+ seconds\n)")

# Qwen Code 0.15 ends the result of a command that has ended with "\nProcess Group PGID: 16833".
_ENDED_GROUP = re.compile(r"(\nExit Code: -?\d+\nSignal: \S+)\nProcess Group PGID: \d+\Z", re.ASCII)

# Numbers keep their digits. A float would round long ones.
_ARGUMENTS = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_COMPACT = msgspec.json.Encoder(decimal_format="number")

_TOOLS = msgspec.json.Decoder(tuple[Tool, ...])
_SORTED = msgspec.json.Encoder(order="deterministic")

_FLOATS = tuple(field.name for field in msgspec.structs.fields(SamplingParams) if field.type is float)
_read_floats = operator.attrgetter(*_FLOATS)


def normalize(request: GenerationRequest) -> GenerationRequest:
    """Idempotent. Tool schemas keep their key order: the key sorts while it encodes, and only a miss pays for
    `canonical_tools`."""
    messages = settle_tool_calls(without_attribution(request.messages))
    sampling = plain_zeros(request.sampling)
    stop = tuple(sorted(set(request.stop))) if request.stop else ()
    if messages is not request.messages or sampling is not request.sampling or stop != request.stop:
        request = msgspec.structs.replace(request, messages=messages, sampling=sampling, stop=stop)
    if not request.tools and (request.tool_choice != ToolChoice() or not request.parallel_tool_calls):
        request = msgspec.structs.replace(request, tool_choice=ToolChoice(), parallel_tool_calls=True)
    if request.template_arguments:
        request = msgspec.structs.replace(request, template_arguments=_sorted(request.template_arguments))
    return request


def plain_zeros(sampling: SamplingParams) -> SamplingParams:
    """-0.0 and 0.0 are equal, but their encodings differ."""
    changes: dict[str, Any] = {}
    if -1.0 in map(math.copysign, repeat(1.0), _read_floats(sampling)):  # every hit comes by here
        changes = {name: 0.0 for name in _FLOATS if getattr(sampling, name) == 0}
    if any(bias == 0 for _, bias in sampling.logit_bias):
        changes["logit_bias"] = tuple((token, bias) for token, bias in sampling.logit_bias if bias != 0)
    return msgspec.structs.replace(sampling, **changes) if changes else sampling


def without_attribution(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The line is always at the front of the first system message."""
    if not messages or messages[0].role != "system":
        return messages
    first, *rest = messages
    line = _ATTRIBUTION.match(first.content)
    if line is None:
        return messages
    content = first.content[line.end() :]
    if rest and not content:
        return tuple(rest)
    return (msgspec.structs.replace(first, content=content), *rest)


def settle_tool_calls(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if not any(message.tool_calls or message.role == "tool" for message in messages):
        return messages
    names = _CallNames()
    settled: list[Message] = []
    for role, run in groupby(messages, key=lambda message: message.role):
        if role == "tool":
            settled.extend(_results(run, names))
        else:
            settled.extend(_with_named_calls(message, names) for message in run)
    return tuple(settled)


def canonical_arguments(arguments: str) -> str:
    """Keys and numbers keep their order and text. Text that is not a JSON object stays; empty text becomes `{}`."""
    if not arguments or arguments.isspace():
        return "{}"
    try:
        return _COMPACT.encode(_ARGUMENTS.decode(arguments)).decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError, InvalidOperation):
        return arguments


def canonical_tools(tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """Sorts the keys of schemas for the prompt. 24 tools of 64 KB take 0.15 ms."""
    return _TOOLS.decode(_SORTED.encode(tools))


def _sorted(value: Any) -> Any:
    """Sorts keys at any depth, because templates print them."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


class _CallNames:
    """Names calls by position. A result belongs to the last message with a call of its id. Several calls of one id take
    their results in order."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: dict[str, deque[int]] = {}

    def call(self, calls: tuple[ToolCall, ...]) -> list[int]:
        made: dict[str, deque[int]] = {}
        places = []
        for call in calls:
            places.append(self._next())
            made.setdefault(call.id, deque()).append(places[-1])
        self._waiting |= made
        return places

    def answer(self, call_id: str) -> int:
        waiting = self._waiting.get(call_id)
        if waiting is None:
            waiting = self._waiting[call_id] = deque((self._next(),))
        return waiting.popleft() if len(waiting) > 1 else waiting[0]

    def _next(self) -> int:
        self._count += 1
        return self._count - 1


def _name(place: int) -> str:
    """Mistral's templates require nine letters and digits."""
    return f"call{place:05d}"


def _with_named_calls(message: Message, names: _CallNames) -> Message:
    if not message.tool_calls:
        return message
    calls = tuple(
        ToolCall(_name(place), call.name, canonical_arguments(call.arguments))
        for place, call in zip(names.call(message.tool_calls), message.tool_calls, strict=True)
    )
    return msgspec.structs.replace(message, tool_calls=calls)


def _results(run: Iterable[Message], names: _CallNames) -> list[Message]:
    placed = sorted(((names.answer(message.tool_call_id), message) for message in run), key=lambda pair: pair[0])
    return [
        msgspec.structs.replace(message, tool_call_id=_name(place), content=_without_ids(message.content))
        for place, message in placed
    ]


def _without_ids(result: str) -> str:
    result = _CHUNK_ID.sub("", result)
    # Most results are neither, and a search through a long one would take time.
    return _ENDED_GROUP.sub(r"\1", result) if result.startswith("Command: ") else result
