"""Turns Anthropic's conversation into canonical messages.

A message is text or a list of blocks. The texts of one message are joined by lines. Tool results, which Anthropic puts
into the user's message, become messages of their own before the user's text.
"""

from typing import Any, Literal

import msgspec

from service.dialects.json_body import check_free_form, decode, join_texts, show
from service.errors import BadRequest, UnsupportedValue
from service.generation import Message, ToolCall


class Block(msgspec.Struct, tag_field="type"):
    """A piece of content. Fields that change no answer (`cache_control`, `citations`, ...) are not read."""


class TextBlock(Block, tag="text"):
    text: str


class ThinkingBlock(Block, tag="thinking"):
    """The `signature` is not read: it is ours, or no model here can check it."""

    thinking: str


class RedactedThinkingBlock(Block, tag="redacted_thinking"): ...


class ToolUseBlock(Block, tag="tool_use"):
    """`input` stays text, so that no number in it is rounded."""

    id: str
    name: str
    input: msgspec.Raw


class ImageBlock(Block, tag="image"):
    pass


class DocumentBlock(Block, tag="document"):
    pass


class ToolResultBlock(Block, tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock] | None = None
    is_error: bool | None = None


AnyBlock = (
    TextBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | ImageBlock
    | DocumentBlock
)  # fmt: skip


class WireMessage(msgspec.Struct):
    """Claude Code adds messages of the role `system` in the middle of a conversation; they stay in their place."""

    role: Literal["user", "assistant", "system"]
    content: str | list[AnyBlock]


_INPUT = msgspec.json.Decoder(dict[str, Any])


def read_messages(system: str | list[TextBlock] | None, messages: list[WireMessage]) -> tuple[Message, ...]:
    """The system prompt, if there is one, is the first message."""
    if isinstance(system, list):
        system = join_texts([block.text for block in system])
    read = [Message(role="system", content=system)] if system else []
    called: set[str] = set()
    for i, message in enumerate(messages):
        content, at = message.content, f"messages[{i}].content"
        if isinstance(content, str):
            read.append(Message(role=message.role, content=content))
        elif message.role == "assistant":
            read.append(_assistant(content, at))
            called.update(call.id for call in read[-1].tool_calls)
        elif message.role == "user":
            read.extend(_user(content, at, called))
        else:
            read.append(Message(role="system", content=_texts(content, at, "a system message")))
    return tuple(read)


def _assistant(blocks: list[AnyBlock], at: str) -> Message:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for i, block in enumerate(blocks):
        match block:
            case TextBlock(text=text):
                texts.append(text)
            case ThinkingBlock(thinking=thinking):
                thoughts.append(thinking)
            case RedactedThinkingBlock():
                pass
            case ToolUseBlock():
                calls.append(ToolCall(block.id, block.name, _arguments(block, f"{at}[{i}].input")))
            case _:
                raise _misplaced(block, f"{at}[{i}]", "an assistant message")
    return Message(role="assistant", content=join_texts(texts), reasoning=join_texts(thoughts), tool_calls=tuple(calls))


def _user(blocks: list[AnyBlock], at: str, called: set[str]) -> list[Message]:
    results: list[Message] = []
    texts: list[str] = []
    for i, block in enumerate(blocks):
        match block:
            case TextBlock(text=text):
                texts.append(text)
            case ToolResultBlock():
                results.append(_result(block, f"{at}[{i}]", called))
            case _:
                raise _misplaced(block, f"{at}[{i}]", "a user message")
    if results and not texts:
        return results
    return [*results, Message(role="user", content=join_texts(texts))]


def _result(block: ToolResultBlock, at: str, called: set[str]) -> Message:
    if block.tool_use_id not in called:
        raise BadRequest(
            f"Invalid '{at}.tool_use_id': no earlier assistant message has a tool_use block {show(block.tool_use_id)}.",
            param=f"{at}.tool_use_id",
        )
    content = block.content or ""
    if isinstance(content, list):
        content = _texts(content, f"{at}.content", "a tool result")
    return Message(role="tool", content=content, tool_call_id=block.tool_use_id, is_error=bool(block.is_error))


def _texts(blocks: list[AnyBlock] | list[TextBlock | ImageBlock | DocumentBlock], at: str, where: str) -> str:
    texts = []
    for i, block in enumerate(blocks):
        if not isinstance(block, TextBlock):
            raise _misplaced(block, f"{at}[{i}]", where)
        texts.append(block.text)
    return join_texts(texts)


def _arguments(block: ToolUseBlock, at: str) -> str:
    text = bytes(block.input)
    check_free_form(decode(_INPUT, text, at=at), at)
    return text.decode()


def _misplaced(block: Block, at: str, where: str) -> BadRequest:
    kind = show(block.__struct_config__.tag)
    param = f"{at}.type"
    if isinstance(block, ImageBlock | DocumentBlock):
        return UnsupportedValue(f"Invalid '{param}': this model reads text only, found {kind}.", param=param)
    return BadRequest(f"Invalid '{param}': a {kind} block has no place in {where}.", param=param)
