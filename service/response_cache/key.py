"""The response-cache key. Requests with the same meaning have the same key."""

import hashlib
from collections import OrderedDict

import msgspec

from service.generation import GenerationRequest, Tool

# Raise it whenever the same request to the same model would get another answer: after a change of normalization,
# prompts, grammars, sampling or parsing. Every stored answer then becomes a miss.
# tests/response_cache/test_golden_keys.py detects changes of prompts and of the key itself.
KEY_VERSION = 8

# An agent sends the same 64 KB of tools with every request, and dialects decode equal ones to one object.
REMEMBERED_TOOL_SETS = 8

# msgpack copies text unchanged, so it is many times faster. Its integers have 64 bits; a schema's may have more.
_SORTED = msgspec.msgpack.Encoder(order="deterministic")
_SORTED_LONG = msgspec.json.Encoder(order="deterministic")
_AS_GIVEN = msgspec.msgpack.Encoder()
_AS_GIVEN_LONG = msgspec.json.Encoder()


class ToolSet(msgspec.Struct, frozen=True):
    """Digests with sorted dictionary keys, and with the client's order."""

    # Keeps the tools alive, so that no other object gets their identity.
    tools: tuple[Tool, ...]
    strict: bool
    as_sorted: bytes
    as_given: bytes


class RequestKeys:
    """Remembers sets of tools by identity, because hashing them would dominate a hit's time. They must be immutable."""

    def __init__(self) -> None:
        self._tool_sets: OrderedDict[int, ToolSet] = OrderedDict()

    @property
    def remembered(self) -> tuple[ToolSet, ...]:
        """Oldest first."""
        return tuple(self._tool_sets.values())

    def key(self, fingerprint: str, request: GenerationRequest) -> str:
        """Returns SHA-256 in hexadecimal. The request must be normalized."""
        # The whole Struct is encoded, so a new field is in the key from the start. Dictionary keys are sorted, except
        # in schemas that the answer must follow: it has their order.
        tools = schemas = b""
        tool_set = self._tool_set(request.tools) if request.tools else None
        ordered = follows_schemas(request, strict=tool_set is not None and tool_set.strict)
        if ordered and request.response_format is not None:
            schemas = _encode(request.response_format, ordered=True)
        if tool_set is not None:
            tools = tool_set.as_given if ordered else tool_set.as_sorted
            request = msgspec.structs.replace(request, tools=())
        return hashlib.sha256(_encode((KEY_VERSION, fingerprint, tools, schemas, request))).hexdigest()

    def _tool_set(self, tools: tuple[Tool, ...]) -> ToolSet:
        remembered = self._tool_sets.get(id(tools))
        if remembered is not None:
            self._tool_sets.move_to_end(id(tools))
            return remembered
        made = ToolSet(
            tools,
            any(tool.strict for tool in tools),
            hashlib.sha256(_encode(tools)).digest(),
            hashlib.sha256(_encode(tools, ordered=True)).digest(),
        )
        self._tool_sets[id(tools)] = made
        if len(self._tool_sets) > REMEMBERED_TOOL_SETS:
            self._tool_sets.popitem(last=False)
        return made


def follows_schemas(request: GenerationRequest, *, strict: bool) -> bool:
    # Equals `service.tool_calling.grammar.is_constrained`, which imports the grammar library.
    if request.response_format is not None:
        return True
    called = request.tool_choice.mode
    return bool(request.tools) and called != "none" and (strict or called == "required")


def _encode(value: object, *, ordered: bool = False) -> bytes:
    # The first byte tells the encodings apart: only JSON begins a value with "[" or "{".
    try:
        return (_AS_GIVEN if ordered else _SORTED).encode(value)
    except OverflowError:
        return (_AS_GIVEN_LONG if ordered else _SORTED_LONG).encode(value)
