from functools import partial

from service.dialects.base import ClientRequest, Reply, StreamEncoder
from service.dialects.openai_dialect import OpenAIDialect
from service.dialects.openai_responses.answer import asked_of, encode_count, encode_response, response_id
from service.dialects.openai_responses.kept import KeptResponses
from service.dialects.openai_responses.request import read_request
from service.dialects.openai_responses.stream import ResponseStream
from service.dialects.openai_responses.tools import read_tools
from service.dialects.tool_definitions import ToolReader
from service.generation import Completion, SamplingParams


class OpenAIResponses(OpenAIDialect):
    """Requests of `caller` continue responses of `caller` only."""

    name = "openai_responses"

    def __init__(self, kept: KeptResponses | None = None, *, searches: bool = False) -> None:
        """`searches`: this server can search the web."""
        self.kept = KeptResponses() if kept is None else kept
        self.caller = ""
        self._read_tools = ToolReader(partial(read_tools, searches=searches))

    def of_caller(self, caller: str) -> "OpenAIResponses":
        """Returns the dialect for one caller. Both share the tools and the remembered responses."""
        if caller == self.caller:
            return self
        other = OpenAIResponses(self.kept)
        other.caller, other._read_tools = caller, self._read_tools
        return other

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        return read_request(body, defaults, self._read_tools, self.kept.of(self.caller))

    def decode_count(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        return self.decode(body, defaults)

    def encode_count(self, tokens: int) -> bytes:
        return encode_count(tokens)

    def encode(self, completion: Completion, reply: Reply) -> bytes:
        encoded = encode_response(completion, reply)
        self._keep(reply, encoded)
        return encoded

    def encode_stream(self, reply: Reply) -> StreamEncoder:
        return ResponseStream(reply, lambda encoded: self._keep(reply, encoded))

    def _keep(self, reply: Reply, encoded: bytes) -> None:
        asked = asked_of(reply)
        if asked.is_kept:
            self.kept.of(self.caller).add(response_id(reply), asked.items, encoded)
