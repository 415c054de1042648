from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from service.dialects.body_fields import UNREAD, Unread
from service.dialects.json_body import check_free_form, choose, join_texts, show
from service.dialects.media import placeholder
from service.errors import BadRequest, InvalidType, MissingParameter, UnsupportedValue
from service.generation import Message, ToolCall

_OTHER_MEDIA = ("image_url", "input_audio", "file", "video_url", "audio_url")


class ContentPart(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    video_url: Any = None
    audio_url: Any = None

    cache_control: Unread = UNREAD
    prompt_cache_breakpoint: Unread = UNREAD


class CalledFunction(msgspec.Struct, forbid_unknown_fields=True):
    """`arguments` should be JSON text; some clients send the object."""

    name: str
    arguments: str | dict[str, Any] | None = None


class CalledTool(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    function: CalledFunction | None = None
    type: str = "function"
    index: Unread = UNREAD


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True):
    """`reasoning` is another name of `reasoning_content`."""

    role: str
    content: str | list[ContentPart] | UnsetType | None = UNSET
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CalledTool] | None = None
    function_call: CalledFunction | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    audio: Any = None

    id: Unread = UNREAD
    name: Unread = UNREAD
    annotations: Unread = UNREAD
    cache_control: Unread = UNREAD


def read_messages(messages: list[ChatMessage]) -> tuple[Message, ...]:
    reader = _Reader()
    return tuple([reader.read(message, f"messages[{i}]") for i, message in enumerate(messages)])


class _Reader:
    def __init__(self) -> None:
        self._called: set[str] = set()
        self._last_function_call = ""
        self._roles: dict[str, Callable[[ChatMessage, str], Message]] = {
            "system": self._system,
            "developer": self._system,
            "user": self._user,
            "assistant": self._assistant,
            "tool": self._tool,
            "function": self._function,
        }

    def read(self, message: ChatMessage, at: str) -> Message:
        return choose(message.role, self._roles, f"{at}.role")(message, at)

    def _system(self, message: ChatMessage, at: str) -> Message:
        return Message(role="system", content=_required_text(message, at))

    def _user(self, message: ChatMessage, at: str) -> Message:
        return Message(role="user", content=_required_text(message, at))

    def _assistant(self, message: ChatMessage, at: str) -> Message:
        # An empty turn is accepted: its answer may have been cut off inside its reasoning.
        calls = [_tool_call(call, f"{at}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ())]
        if message.function_call is not None:
            calls.append(self._function_call(message.function_call, at))
        self._called.update(call.id for call in calls)
        content = _text(message.content, f"{at}.content") if message.content else message.refusal or ""
        if message.audio is not None:
            content = join_texts([text for text in (content, placeholder("audio", message.audio)) if text])
        return Message(
            role="assistant",
            content=content,
            reasoning=message.reasoning_content or message.reasoning or "",
            tool_calls=tuple(calls),
        )

    def _tool(self, message: ChatMessage, at: str) -> Message:
        param = f"{at}.tool_call_id"
        if message.tool_call_id is None:
            raise MissingParameter(param)
        if message.tool_call_id not in self._called:
            raise BadRequest.at(param, f"no earlier assistant message has a tool call {show(message.tool_call_id)}.")
        return Message(role="tool", content=_required_text(message, at), tool_call_id=message.tool_call_id)

    def _function_call(self, function: CalledFunction, at: str) -> ToolCall:
        # The deprecated form has no ids, so the number of calls before it serves as one.
        self._last_function_call = f"call_{len(self._called)}"
        return ToolCall(self._last_function_call, function.name, _arguments(function, f"{at}.function_call"))

    def _function(self, message: ChatMessage, at: str) -> Message:
        if not self._last_function_call:
            raise BadRequest.at(f"{at}.role", "no earlier assistant message has a 'function_call'.")
        return Message(role="tool", content=_required_text(message, at), tool_call_id=self._last_function_call)


def unread_media(messages: list[ChatMessage]) -> tuple[str, ...]:
    found: list[str] = []
    for i, message in enumerate(messages):
        if isinstance(message.content, list):
            parts = enumerate(message.content)
            found += [f"messages[{i}].content[{j}].type" for j, part in parts if part.type in _OTHER_MEDIA]
        if message.audio is not None:
            found.append(f"messages[{i}].audio")
    return tuple(found)


def _required_text(message: ChatMessage, at: str) -> str:
    content = message.content
    if type(content) is str:
        return content
    param = f"{at}.content"
    if content is UNSET:
        raise MissingParameter(param)
    if content is None:
        raise InvalidType(f"Invalid type for '{param}': expected string or array, found null.", param=param)
    return _text(content, param)


def _text(content: str | list[ContentPart], param: str) -> str:
    if isinstance(content, str):
        return content
    return join_texts([_part_text(part, f"{param}[{i}]") for i, part in enumerate(content)])


def _part_text(part: ContentPart, at: str) -> str:
    if part.type in _OTHER_MEDIA:
        return placeholder(part.type, getattr(part, part.type))
    field = choose(part.type, {"text": "text", "refusal": "refusal"}, f"{at}.type")
    text = part.text if field == "text" else part.refusal
    if text is None:
        raise MissingParameter(f"{at}.{field}")
    return text


def _tool_call(call: CalledTool, at: str) -> ToolCall:
    if call.type != "function":
        raise UnsupportedValue.at(f"{at}.type", f"expected 'function', found {show(call.type)}.")
    if call.function is None:
        raise MissingParameter(f"{at}.function")
    return ToolCall(call.id, call.function.name, _arguments(call.function, f"{at}.function"))


def _arguments(function: CalledFunction, at: str) -> str:
    if isinstance(function.arguments, str):
        return function.arguments or "{}"
    check_free_form(function.arguments, f"{at}.arguments")
    return msgspec.json.encode(function.arguments or {}).decode()
