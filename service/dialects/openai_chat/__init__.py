"""OpenAI's chat completions: `POST /v1/chat/completions`.

`request.py` decodes a body, with `messages.py` and `tools.py` for its large fields. `answer.py` encodes a finished
answer and an error; `stream.py` encodes a stream.
"""

from service.dialects.base import ClientRequest, Reply, StreamEncoder
from service.dialects.openai_chat.answer import encode_completion
from service.dialects.openai_chat.request import read_request
from service.dialects.openai_chat.stream import ChatStream
from service.dialects.openai_chat.tools import read_tools
from service.dialects.openai_error import encode_error
from service.dialects.tool_definitions import ToolReader
from service.errors import ServiceError
from service.generation import Completion, SamplingParams

__all__ = ["OpenAIChat"]


class OpenAIChat:
    """Requests with the same tools share them, so schemas must never be changed in place."""

    name = "openai_chat"
    request_id_header = "x-request-id"

    def __init__(self) -> None:
        self._read_tools = ToolReader(read_tools)

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        return read_request(body, defaults, self._read_tools)

    def encode(self, completion: Completion, reply: Reply) -> bytes:
        return encode_completion(completion, reply)

    def encode_stream(self, reply: Reply) -> StreamEncoder:
        return ChatStream(reply)

    def encode_error(self, error: ServiceError, request_id: str) -> bytes:
        # The request's id is not in the body: clients read it from `x-request-id`.
        return encode_error(error)

    def error_status(self, error: ServiceError) -> int:
        return error.status
