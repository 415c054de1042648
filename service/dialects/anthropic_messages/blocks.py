"""The blocks of a message's content, and the text of those without text.

A conversation that began on Anthropic's servers contains searches, fetched pages and summaries. They become text in
their place, so that it can continue here.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from service.dialects.body_fields import UNREAD, Unread
from service.dialects.json_body import check_free_form, decode, join_texts
from service.dialects.media import placeholder


class Block(msgspec.Struct, tag_field="type", kw_only=True, forbid_unknown_fields=True):
    cache_control: Unread = UNREAD


class TextBlock(Block, tag="text"):
    text: str
    citations: Unread = UNREAD


class ThinkingBlock(Block, tag="thinking"):
    """The `signature` is not read: no model here can check it, unless it is ours."""

    thinking: str
    signature: Unread = UNREAD


class RedactedThinkingBlock(Block, tag="redacted_thinking"):
    data: Unread = UNREAD


class ToolUseBlock(Block, tag="tool_use"):
    """`input` stays text, so that no number in it is rounded."""

    id: str
    name: str
    input: msgspec.Raw
    caller: Unread = UNREAD
    toolset_name: Unread = UNREAD


class ImageBlock(Block, tag="image"):
    source: dict[str, Any] | None = None
    transformations: Unread = UNREAD


class AudioBlock(ImageBlock, tag="audio"):
    """Not in Anthropic's API, but tools return it (MCP)."""


class DocumentSource(msgspec.Struct, tag_field="type", forbid_unknown_fields=True): ...


class TextSource(DocumentSource, tag="text"):
    data: str
    media_type: Unread = UNREAD


class ContentSource(DocumentSource, tag="content"):
    content: str | list[TextBlock | ImageBlock]


class Base64Source(DocumentSource, tag="base64"):
    data: str | None = None
    media_type: str | None = None


class UrlSource(DocumentSource, tag="url"):
    url: str | None = None


class FileSource(DocumentSource, tag="file"):
    file_id: str | None = None


class DocumentBlock(Block, tag="document"):
    source: TextSource | ContentSource | Base64Source | UrlSource | FileSource | None = None
    title: str | None = None
    context: str | None = None
    citations: Unread = UNREAD


class SearchResultBlock(Block, tag="search_result"):
    source: str
    title: str
    content: list[TextBlock]
    citations: Unread = UNREAD


class ToolReferenceBlock(Block, tag="tool_reference"):
    """The result of a search for tools: the named tool is loaded."""

    tool_name: str


BlockInResult = TextBlock | ImageBlock | AudioBlock | DocumentBlock | SearchResultBlock | ToolReferenceBlock


class ToolResultBlock(Block, tag="tool_result"):
    tool_use_id: str
    content: str | list[BlockInResult] | None = None
    is_error: bool | None = None
    toolset_name: Unread = UNREAD


class ForeignBlock(Block):
    """A block of Anthropic's servers."""


class ServerToolUseBlock(ForeignBlock, tag="server_tool_use"):
    name: str
    input: msgspec.Raw
    id: Unread = UNREAD
    caller: Unread = UNREAD


class McpToolUseBlock(ForeignBlock, tag="mcp_tool_use"):
    name: str
    input: msgspec.Raw
    id: Unread = UNREAD
    server_name: Unread = UNREAD


class ServerResult(ForeignBlock):
    content: msgspec.Raw = msgspec.Raw(b"null")
    tool_use_id: Unread = UNREAD
    caller: Unread = UNREAD


class McpToolResult(ServerResult, tag="mcp_tool_result"):
    is_error: Unread = UNREAD


class WebSearchResult(ServerResult, tag="web_search_tool_result"): ...


class WebFetchResult(ServerResult, tag="web_fetch_tool_result"): ...


class AdvisorResult(ServerResult, tag="advisor_tool_result"): ...


class CodeExecutionResult(ServerResult, tag="code_execution_tool_result"): ...


class BashCodeExecutionResult(ServerResult, tag="bash_code_execution_tool_result"): ...


class EditorCodeExecutionResult(ServerResult, tag="text_editor_code_execution_tool_result"): ...


class ToolSearchResult(ServerResult, tag="tool_search_tool_result"): ...


class CompactionBlock(ForeignBlock, tag="compaction"):
    """A summary of the conversation before it, or None."""

    content: str | None = None
    encrypted_content: Unread = UNREAD
    signature: Unread = UNREAD


class ContainerUploadBlock(ForeignBlock, tag="container_upload"):
    file_id: str


class FallbackBlock(ForeignBlock, tag="fallback"):
    """A mark: another model answered from here on."""

    earlier: Unread = msgspec.field(default=UNREAD, name="from")
    to: Unread = UNREAD
    trigger: Unread = UNREAD


class McpToolListingBlock(ForeignBlock, tag="mcp_tool_listing"):
    """The tools of an MCP server that Anthropic's servers call."""

    mcp_server_name: Unread = UNREAD
    tools: Unread = UNREAD


class ToolChange(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    name: str | None = None


class ToolAdditionBlock(Block, tag="tool_addition"):
    tool: ToolChange


class ToolRemovalBlock(Block, tag="tool_removal"):
    tool: ToolChange


AnyForeignBlock = (
    ServerToolUseBlock
    | McpToolUseBlock
    | McpToolResult
    | WebSearchResult
    | WebFetchResult
    | AdvisorResult
    | CodeExecutionResult
    | BashCodeExecutionResult
    | EditorCodeExecutionResult
    | ToolSearchResult
    | CompactionBlock
    | ContainerUploadBlock
    | FallbackBlock
    | McpToolListingBlock
)
AnyBlock = (
    TextBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | ImageBlock
    | AudioBlock
    | DocumentBlock
    | SearchResultBlock
    | ToolReferenceBlock
    | ToolAdditionBlock
    | ToolRemovalBlock
    | AnyForeignBlock
)

_ANYTHING = msgspec.json.Decoder()
_COMPACT = msgspec.json.Encoder()
_LEFT_OUT = ("signature", "cache_control", "citations")


def foreign_text(block: ForeignBlock, at: str) -> str | None:
    match block:
        case CompactionBlock(content):
            return content
        case ServerToolUseBlock(name, given) | McpToolUseBlock(name, given):
            return f"[{name} was called with {_readable(given, f'{at}.input')}]"
        case ServerResult(content):
            tool = str(block.__struct_config__.tag).removesuffix("_tool_result")
            return f"[{tool} returned {_readable(content, f'{at}.content')}]"
        case ContainerUploadBlock(file_id):
            return f"[file {file_id}: it cannot be read here]"
        case _:
            return None


def document_text(document: DocumentBlock) -> str:
    match document.source:
        case TextSource(data):
            text = data
        case ContentSource(str(content)):
            text = content
        case ContentSource(list(content)):
            text = _texts(content)
        case source:
            text = placeholder("document", source and msgspec.structs.asdict(source))
    return join_texts([line for line in (document.title, document.context, text) if line])


def search_result_text(result: SearchResultBlock) -> str:
    return join_texts([f"{result.title} ({result.source})", *(block.text for block in result.content)])


def _texts(blocks: Sequence[TextBlock | ImageBlock]) -> str:
    return join_texts([block.text if isinstance(block, TextBlock) else image_text(block) for block in blocks])


def image_text(image: ImageBlock) -> str:
    return placeholder(str(image.__struct_config__.tag), image.source)


def is_unread(block: Block) -> bool:
    return isinstance(block, ImageBlock) or (
        isinstance(block, DocumentBlock) and not isinstance(block.source, (TextSource, ContentSource))
    )


def _readable(raw: msgspec.Raw, at: str) -> str:
    value = decode(_ANYTHING, bytes(raw), at=at)
    check_free_form(value, at)
    return value if isinstance(value, str) else _COMPACT.encode(_without_secrets(value)).decode()


def _without_secrets(value: Any) -> Any:
    match value:
        case dict():
            shown = (key for key in value if key not in _LEFT_OUT and not key.startswith("encrypted_"))
            return {key: _without_secrets(value[key]) for key in shown}
        case list():
            return [_without_secrets(item) for item in value]
    return value
