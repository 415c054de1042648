"""OpenAI's embeddings: `POST /v1/embeddings`. `request.py` decodes a body, `answer.py` encodes the vectors."""

from service.dialects.base import ClientRequest, Reply, StreamEncoder
from service.dialects.openai_dialect import OpenAIDialect
from service.dialects.openai_embeddings.answer import encode_embeddings
from service.dialects.openai_embeddings.request import read_request
from service.errors import BadRequest
from service.generation import Completion, SamplingParams

__all__ = ["OpenAIEmbeddings"]


class OpenAIEmbeddings(OpenAIDialect):
    name = "openai_embeddings"

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        return read_request(body)

    def encode(self, completion: Completion, reply: Reply) -> bytes:
        return encode_embeddings(completion, reply)

    def encode_stream(self, reply: Reply) -> StreamEncoder:
        raise BadRequest("Embeddings are not streamed.")  # `decode` knows no streams
