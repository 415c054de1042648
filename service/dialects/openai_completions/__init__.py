"""OpenAI's completions: `POST /v1/completions`, text that the model continues.

`request.py` decodes a body with one or several prompts, `answer.py` encodes a finished completion, `stream.py` its
chunks.
"""

from service.dialects.base import ClientRequest, Reply, StreamEncoder
from service.dialects.openai_completions.answer import encode_completion
from service.dialects.openai_completions.request import read_request
from service.dialects.openai_completions.stream import TextStream
from service.dialects.openai_dialect import OpenAIDialect
from service.generation import Completion, SamplingParams

__all__ = ["OpenAICompletions"]


class OpenAICompletions(OpenAIDialect):
    name = "openai_completions"

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        return read_request(body, defaults)

    def encode(self, completion: Completion, reply: Reply) -> bytes:
        return encode_completion(completion, reply)

    def encode_stream(self, reply: Reply) -> StreamEncoder:
        return TextStream(reply)
