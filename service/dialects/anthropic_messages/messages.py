"""Turns Anthropic's conversation into canonical messages.

The texts of one message are joined by lines. Tool results, which Anthropic puts into the user's message, become
messages before the user's text.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from service.dialects.anthropic_messages.blocks import (
    AnyBlock,
    Block,
    ContentSource,
    DocumentBlock,
    ForeignBlock,
    ImageBlock,
    RedactedThinkingBlock,
    SearchResultBlock,
    TextBlock,
    ThinkingBlock,
    ToolAdditionBlock,
    ToolChange,
    ToolReferenceBlock,
    ToolRemovalBlock,
    ToolResultBlock,
    ToolUseBlock,
    document_text,
    foreign_text,
    image_text,
    is_unread,
    search_result_text,
)
from service.dialects.body_fields import UNREAD, Unread
from service.dialects.json_body import check_free_form, decode, join_texts, show
from service.errors import BadRequest, UnsupportedValue
from service.generation import Message, Tool, ToolCall


class TurnConfig(msgspec.Struct, forbid_unknown_fields=True):
    effort: str | None = None


class SentMessage(msgspec.Struct, forbid_unknown_fields=True):
    """Claude Code sends messages with the role `system` in the middle of a conversation; they stay in their place."""

    role: Literal["user", "assistant", "system"]
    content: str | list[AnyBlock]
    clear_at: Literal["next_user_message", "never"] | None = None
    output_config: TurnConfig | None = None

    # Fields of an answer that a client sends back whole.
    id: Unread = UNREAD
    type: Unread = UNREAD
    model: Unread = UNREAD
    stop_reason: Unread = UNREAD
    stop_sequence: Unread = UNREAD
    stop_details: Unread = UNREAD
    usage: Unread = UNREAD
    container: Unread = UNREAD
    context_management: Unread = UNREAD


_INPUT = msgspec.json.Decoder(dict[str, Any])
_SORTED = msgspec.json.Encoder(order="deterministic")


def read_messages(system: str, messages: list[SentMessage], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """The system prompt is the first message. Messages may refer to `tools` by name."""
    read = [Message(role="system", content=system)] if system else []
    reader = _Reader(tools)
    last_user = max((i for i, message in enumerate(messages) if message.role == "user"), default=0)
    for i, message in enumerate(messages):
        cleared = message.clear_at == "next_user_message" and i < last_user
        if not cleared:
            read.extend(reader.read(message, f"messages[{i}].content"))
    return tuple(read)


class _Reader:
    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = tools
        self._called: set[str] = set()

    def read(self, message: SentMessage, at: str) -> list[Message]:
        content = message.content
        if isinstance(content, str):
            return [Message(role=message.role, content=content)]
        match message.role:
            case "assistant":
                return [self._assistant(content, at)]
            case "user":
                return self._user(content, at)
            case "system":
                return [self._system(content, at)]

    def _assistant(self, blocks: list[AnyBlock], at: str) -> Message:
        said: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        for i, block in enumerate(blocks):
            match block:
                case TextBlock(text=text):
                    said.append(text)
                case ThinkingBlock(thinking=thinking):
                    thoughts.append(thinking)
                case RedactedThinkingBlock():
                    pass
                case ToolUseBlock():
                    calls.append(ToolCall(block.id, block.name, _arguments(block, f"{at}[{i}].input")))
                case ForeignBlock():
                    said += _foreign(block, f"{at}[{i}]")
                case _:
                    raise _misplaced(block, f"{at}[{i}]", "an assistant message")
        self._called.update(call.id for call in calls)
        return Message(
            role="assistant", content=join_texts(said), reasoning=join_texts(thoughts), tool_calls=tuple(calls)
        )

    def _user(self, blocks: list[AnyBlock], at: str) -> list[Message]:
        results: list[Message] = []
        said: list[str] = []
        for i, block in enumerate(blocks):
            match block:
                case TextBlock(text=text):
                    said.append(text)
                case ToolResultBlock():
                    results.append(self._result(block, f"{at}[{i}]"))
                case ForeignBlock():
                    said += _foreign(block, f"{at}[{i}]")
                case DocumentBlock() | SearchResultBlock() | ImageBlock():
                    said.append(self._text(block, f"{at}[{i}]", "a user message"))
                case _:
                    raise _misplaced(block, f"{at}[{i}]", "a user message")
        if results and not said:
            return results
        return [*results, Message(role="user", content=join_texts(said))]

    def _system(self, blocks: list[AnyBlock], at: str) -> Message:
        said = []
        for i, block in enumerate(blocks):
            match block:
                case ToolAdditionBlock(tool):
                    said.append(f"A tool was added:\n{self._definition(_name(tool, f'{at}[{i}].tool'))}")
                case ToolRemovalBlock(tool):
                    said.append(f"The tool {_name(tool, f'{at}[{i}].tool')} was removed.")
                case _:
                    said.append(self._text(block, f"{at}[{i}]", "a system message"))
        return Message(role="system", content=join_texts(said))

    def _result(self, block: ToolResultBlock, at: str) -> Message:
        if block.tool_use_id not in self._called:
            raise BadRequest.at(
                f"{at}.tool_use_id", f"no earlier assistant message has a tool_use block {show(block.tool_use_id)}."
            )
        content = block.content or ""
        if isinstance(content, list):
            content = join_texts(
                [self._text(part, f"{at}.content[{i}]", "a tool result") for i, part in enumerate(content)]
            )
        return Message(role="tool", content=content, tool_call_id=block.tool_use_id, is_error=bool(block.is_error))

    def _text(self, block: Block, at: str, where: str) -> str:
        match block:
            case TextBlock(text=text):
                return text
            case DocumentBlock():
                return document_text(block)
            case SearchResultBlock():
                return search_result_text(block)
            case ToolReferenceBlock(name):
                return self._definition(name)
            case ImageBlock():
                return image_text(block)
        raise _misplaced(block, at, where)

    def _definition(self, name: str) -> str:
        # A deferred tool's definition goes into the conversation, so loading only extends the prompt.
        tool = next((tool for tool in self._tools if tool.name == name), None)
        shown: dict[str, Any] = {"name": name}
        if tool is not None:
            shown |= {"description": tool.description, "parameters": tool.parameters}
        return f"<functions>\n<function>{_SORTED.encode(shown).decode()}</function>\n</functions>"


def unread_media(messages: list[SentMessage]) -> tuple[str, ...]:
    """Returns the paths of blocks that were replaced by text."""
    found: list[str] = []
    for i, message in enumerate(messages):
        if isinstance(message.content, list):
            found += _unread_blocks(message.content, f"messages[{i}].content")
    return tuple(found)


def _unread_blocks(blocks: Sequence[Block], at: str) -> Iterator[str]:
    for i, block in enumerate(blocks):
        if isinstance(block, TextBlock):  # nearly all are
            continue
        if is_unread(block):
            yield f"{at}[{i}].type"
        elif isinstance(block, ToolResultBlock) and isinstance(block.content, list):
            yield from _unread_blocks(block.content, f"{at}[{i}].content")
        elif isinstance(block, DocumentBlock) and isinstance(block.source, ContentSource):
            inner = block.source.content
            yield from _unread_blocks(inner if isinstance(inner, list) else (), f"{at}[{i}].source.content")


def _name(tool: ToolChange, at: str) -> str:
    if tool.name is None:
        raise UnsupportedValue.at(at, "expected the 'name' of one of the request's 'tools'.")
    return tool.name


def _foreign(block: ForeignBlock, at: str) -> list[str]:
    text = foreign_text(block, at)
    return [] if text is None else [text]


def _arguments(block: ToolUseBlock, at: str) -> str:
    text = bytes(block.input)
    check_free_form(decode(_INPUT, text, at=at), at)
    return text.decode()


def _misplaced(block: Block, at: str, where: str) -> BadRequest:
    kind = show(block.__struct_config__.tag)
    return BadRequest.at(f"{at}.type", f"a {kind} block has no place in {where}.")
