"""Turns the items of the Responses API into canonical messages. Consecutive reasoning, text and calls form one turn of
the assistant."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from service.dialects.body_fields import UNREAD, FieldReader, OtherFields, Unread, join_fields
from service.dialects.json_body import check_free_form, choose, decode, join_texts, show
from service.dialects.media import placeholder
from service.dialects.openai_responses.kept import CallersResponses
from service.dialects.openai_responses.tools import (
    INPUT,
    TOOL_SEARCH,
    NamedTools,
    model_name,
    read_tools,
)
from service.errors import BadRequest, UnsupportedValue
from service.generation import Message, Role, ToolCall

# The prefix of our own encrypted content. No other server's content can be read here.
SEAL = "anyclaude-1."

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_THOUGHTS = {"summary_text": "text", "reasoning_text": "text", "text": "text"}
_OTHER_MEDIA = ("input_image", "input_file", "input_audio", "computer_screenshot")


class ContentPart(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None

    annotations: Unread = UNREAD
    detail: Unread = UNREAD
    logprobs: Unread = UNREAD
    prompt_cache_breakpoint: Unread = UNREAD


class InputItem(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str = "message"

    id: Unread = UNREAD
    status: Unread = UNREAD
    phase: Unread = UNREAD
    caller: Unread = UNREAD
    runs_later: Unread = msgspec.field(default=UNREAD, name="async")


class MessageItem(InputItem, kw_only=True, forbid_unknown_fields=True):
    role: str
    content: str | list[ContentPart]


class FunctionCallItem(InputItem, kw_only=True, forbid_unknown_fields=True):
    call_id: str
    name: str
    arguments: str = "{}"
    namespace: str | None = None


class CustomCallItem(InputItem, kw_only=True, forbid_unknown_fields=True):
    call_id: str
    name: str
    input: str
    namespace: str | None = None


class ToolSearchCallItem(InputItem, kw_only=True, forbid_unknown_fields=True):
    arguments: msgspec.Raw
    call_id: str | None = None
    execution: str | None = None


class CallOutputItem(InputItem, kw_only=True, forbid_unknown_fields=True):
    call_id: str
    output: str | list[ContentPart] | None = None
    name: Unread = UNREAD
    namespace: Unread = UNREAD


class ToolSearchOutputItem(InputItem, kw_only=True, forbid_unknown_fields=True):
    tools: msgspec.Raw
    call_id: str | None = None
    execution: str | None = None


class AdditionalToolsItem(InputItem, kw_only=True, forbid_unknown_fields=True):
    tools: msgspec.Raw
    role: Unread = UNREAD


class ReasoningItem(InputItem, kw_only=True, forbid_unknown_fields=True):
    summary: list[ContentPart] | None = None
    content: list[ContentPart] | None = None
    encrypted_content: str | None = None


class CompactionItem(InputItem, kw_only=True, forbid_unknown_fields=True):
    encrypted_content: str


class ItemReference(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    id: str
    type: str = "item_reference"


class _ItemHead(msgspec.Struct):
    """Clients write messages and references without a type."""

    type: str | None = None
    role: msgspec.Raw = UNREAD


class ReadItems(msgspec.Struct, frozen=True):
    """`tools` came with the items. `raws` are the items with references replaced."""

    messages: tuple[Message, ...]
    tools: NamedTools
    raws: tuple[msgspec.Raw, ...]
    others: OtherFields
    unread_media: tuple[str, ...] = ()


_HEAD = msgspec.json.Decoder(_ItemHead)
_ANYTHING = msgspec.json.Decoder()
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder()
_SORTED = msgspec.json.Encoder(order="deterministic")

# Items of tools that OpenAI's servers or other clients ran. They are read as text.
FOREIGN = frozenset(
    {
        "file_search_call", "web_search_call", "code_interpreter_call", "image_generation_call", "computer_call",
        "computer_call_output", "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output",
        "apply_patch_call", "apply_patch_call_output", "mcp_list_tools", "mcp_approval_request",
        "mcp_approval_response", "mcp_call", "program", "program_output",
    }
)  # fmt: skip
_LEFT_OUT = ("id", "status", "result", "encrypted_content")


def seal(text: str) -> str:
    """Encodes content for clients to return unread."""
    return SEAL + b64encode(text.encode()).decode()


def unseal(content: str) -> str | None:
    if not content.startswith(SEAL):
        return None
    try:
        return b64decode(content.removeprefix(SEAL), validate=True).decode()
    except ValueError:
        return None


def read_items(earlier: Sequence[msgspec.Raw], given: str | Sequence[msgspec.Raw], kept: CallersResponses) -> ReadItems:
    """`earlier` items precede those of the body's `input`. Raises `BadRequest` that names the item."""
    if isinstance(given, str):
        given = (msgspec.Raw(_ENCODER.encode({"type": "message", "role": "user", "content": given})),)
    reader = _Reader(kept)
    for i, raw in enumerate(earlier):
        reader.read(raw, f"previous_response_id[{i}]")
    for i, raw in enumerate(given):
        reader.read(raw, f"input[{i}]")
    return reader.finish()


def _kind(raw: msgspec.Raw, at: str) -> str:
    head = decode(_HEAD, bytes(raw), at=at)
    return head.type or ("message" if bytes(head.role) else "item_reference")


class _Reader:
    def __init__(self, kept: CallersResponses) -> None:
        self._kept = kept
        self._messages: list[Message] = []
        self._turn = _AssistantTurn()
        self._called: set[str] = set()
        self._tools = NamedTools()
        self._raws: list[msgspec.Raw] = []
        self._media: list[str] = []
        self._others: list[OtherFields] = []

    def read(self, raw: msgspec.Raw, at: str) -> None:
        kind = _kind(raw, at)
        if kind in FOREIGN:
            self._raws.append(raw)
            self._turn.texts.append(_foreign_text(raw, kind, at))
            return
        reader, take_in = choose(kind, _KINDS, f"{at}.type")
        item, others = reader.read(bytes(raw), at=at)
        self._others.append(others)
        if not isinstance(item, ItemReference):
            self._raws.append(raw)
        take_in(self, item, at)

    def finish(self) -> ReadItems:
        self._end_turn()
        others = join_fields(*self._others)
        return ReadItems(tuple(self._messages), self._tools, tuple(self._raws), others, tuple(self._media))

    def reference(self, item: ItemReference, at: str) -> None:
        raw = self._kept.item(item.id)
        # A damaged response may hold a reference to itself.
        if raw is None or _kind(raw, at) == "item_reference":
            raise BadRequest.at(
                f"{at}.id", f"the item {show(item.id)} is not kept here any more. Send the item itself."
            )
        self.read(raw, at)

    def message(self, item: MessageItem, at: str) -> None:
        role = choose(item.role, _ROLES, f"{at}.role")
        text = item.content if isinstance(item.content, str) else self._parts(item.content, f"{at}.content")
        if role == "assistant":
            self._turn.texts.append(text)
        else:
            self._add(Message(role=role, content=text))

    def _parts(self, parts: Sequence[ContentPart], at: str) -> str:
        self._media += [f"{at}[{i}].type" for i, part in enumerate(parts) if part.type in _OTHER_MEDIA]
        return _texts(parts, at, _TEXTS)

    def function_call(self, item: FunctionCallItem, at: str) -> None:
        self._call(item.call_id, model_name(item.namespace or "", item.name), item.arguments or "{}")

    def custom_call(self, item: CustomCallItem, at: str) -> None:
        arguments = _ENCODER.encode({INPUT: item.input}).decode()
        self._call(item.call_id, model_name(item.namespace or "", item.name), arguments)

    def tool_search_call(self, item: ToolSearchCallItem, at: str) -> None:
        arguments = bytes(item.arguments)
        check_free_form(decode(_OBJECT, arguments, at=f"{at}.arguments"), f"{at}.arguments")
        self._call(item.call_id or "", TOOL_SEARCH, arguments.decode())

    def output(self, item: CallOutputItem, at: str) -> None:
        output = item.output or ""
        if isinstance(output, list):
            output = self._parts(output, f"{at}.output")
        self._answer(item.call_id, output, at)

    def found_tools(self, item: ToolSearchOutputItem, at: str) -> None:
        self._answer(item.call_id or "", self._define(item.tools, f"{at}.tools"), at)

    def added_tools(self, item: AdditionalToolsItem, at: str) -> None:
        self._add(Message(role="system", content=f"Tools were added:\n{self._define(item.tools, f'{at}.tools')}"))

    def reasoning(self, item: ReasoningItem, at: str) -> None:
        """Our own encrypted content is the whole reasoning. Of another's only the summary is readable."""
        thought = unseal(item.encrypted_content or "")
        if thought is None:
            parts, field = (item.content, "content") if item.content else (item.summary, "summary")
            thought = _texts(parts or (), f"{at}.{field}", _THOUGHTS)
        if thought:
            self._turn.thoughts.append(thought)

    def compaction(self, item: CompactionItem, at: str) -> None:
        summary = unseal(item.encrypted_content)
        if summary is None:
            raise UnsupportedValue.at(
                f"{at}.encrypted_content",
                "only the server that made this summary can read it. Send the conversation itself.",
            )
        self._add(Message(role="system", content=f"The conversation before this was summarized:\n{summary}"))

    def _call(self, call_id: str, name: str, arguments: str) -> None:
        self._called.add(call_id)
        self._turn.calls.append(ToolCall(call_id, name, arguments))

    def _answer(self, call_id: str, output: str, at: str) -> None:
        if call_id not in self._called:
            raise BadRequest.at(f"{at}.call_id", f"no earlier item is a call {show(call_id)}.")
        self._add(Message(role="tool", content=output, tool_call_id=call_id))

    def _define(self, raw: msgspec.Raw, at: str) -> str:
        """Remembers tools that arrive in mid-conversation. The text defines them for the model."""
        read = read_tools(bytes(raw), at)
        self._others.append(read.others)
        known = {tool.name for tool in self._tools.tools}
        new = tuple(msgspec.structs.replace(tool, deferred=True) for tool in read.tools if tool.name not in known)
        self._tools = NamedTools(self._tools.tools + new, names={**read.names, **self._tools.names})
        shown = (
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters} for tool in read.tools
        )
        functions = [f"<function>{_SORTED.encode(tool).decode()}</function>" for tool in shown]
        return join_texts(["<functions>", *functions, "</functions>"])

    def _add(self, message: Message) -> None:
        self._end_turn()
        self._messages.append(message)

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, _AssistantTurn()
        if turn.texts or turn.thoughts or turn.calls:
            self._messages.append(
                Message(
                    role="assistant",
                    content=join_texts(turn.texts),
                    reasoning=join_texts(turn.thoughts),
                    tool_calls=tuple(turn.calls),
                )
            )


_KINDS: Mapping[str, tuple[FieldReader[Any], Callable[[_Reader, Any, str], None]]] = {
    "message": (FieldReader(MessageItem), _Reader.message),
    "function_call": (FieldReader(FunctionCallItem), _Reader.function_call),
    "custom_tool_call": (FieldReader(CustomCallItem), _Reader.custom_call),
    "tool_search_call": (FieldReader(ToolSearchCallItem), _Reader.tool_search_call),
    "function_call_output": (FieldReader(CallOutputItem), _Reader.output),
    "custom_tool_call_output": (FieldReader(CallOutputItem), _Reader.output),
    "tool_search_output": (FieldReader(ToolSearchOutputItem), _Reader.found_tools),
    "additional_tools": (FieldReader(AdditionalToolsItem), _Reader.added_tools),
    "reasoning": (FieldReader(ReasoningItem), _Reader.reasoning),
    "compaction": (FieldReader(CompactionItem), _Reader.compaction),
    "item_reference": (FieldReader(ItemReference), _Reader.reference),
}


class _AssistantTurn(msgspec.Struct):
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []


def _texts(parts: Iterable[ContentPart], at: str, kinds: Mapping[str, str]) -> str:
    return join_texts([_text(part, f"{at}[{i}]", kinds) for i, part in enumerate(parts)])


def _text(part: ContentPart, at: str, kinds: Mapping[str, str]) -> str:
    if part.type in _OTHER_MEDIA:
        return placeholder(part.type, part.image_url, part.input_audio, msgspec.structs.asdict(part))
    field = choose(part.type, kinds, f"{at}.type")
    return (part.text if field == "text" else part.refusal) or ""


def _foreign_text(raw: msgspec.Raw, kind: str, at: str) -> str:
    value = decode(_OBJECT, bytes(raw), at=at)
    check_free_form(value, at)
    shown = {name: item for name, item in value.items() if name not in (*_LEFT_OUT, "type")}
    return f"[{kind}: {_ENCODER.encode(shown).decode()}]"
