"""OpenAI's chat completions: `POST /v1/chat/completions`.

`request.py` decodes a body, with `messages.py` and `tools.py` for its large fields. `answer.py` encodes a finished
answer and an error; `stream.py` encodes a stream.
"""

from service.dialects.base import ClientRequest, Reply, StreamEncoder
from service.dialects.openai_chat.answer import encode_completion
from service.dialects.openai_chat.request import read_request
from service.dialects.openai_chat.stream import ChatStream
from service.dialects.openai_chat.tools import read_tools
from service.dialects.openai_dialect import OpenAIDialect
from service.dialects.tool_definitions import ToolReader
from service.generation import Completion, SamplingParams

__all__ = ["OpenAIChat"]


class OpenAIChat(OpenAIDialect):
    """Requests with the same tools share them, so schemas must never be changed in place."""

    name = "openai_chat"

    def __init__(self) -> None:
        self._read_tools = ToolReader(read_tools)

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        return read_request(body, defaults, self._read_tools)

    def encode(self, completion: Completion, reply: Reply) -> bytes:
        return encode_completion(completion, reply)

    def encode_stream(self, reply: Reply) -> StreamEncoder:
        return ChatStream(reply)
