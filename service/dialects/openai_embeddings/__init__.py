"""OpenAI's embeddings: `POST /v1/embeddings`. `request.py` decodes a body, `answer.py` encodes the vectors."""

from service.dialects.base import ClientRequest, Reply, StreamEncoder
from service.dialects.openai_embeddings.answer import encode_embeddings
from service.dialects.openai_embeddings.request import read_request
from service.dialects.openai_error import encode_error
from service.errors import BadRequest, ServiceError
from service.generation import Completion, SamplingParams

__all__ = ["OpenAIEmbeddings"]


class OpenAIEmbeddings:
    name = "openai_embeddings"
    request_id_header = "x-request-id"

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        return read_request(body)

    def encode(self, completion: Completion, reply: Reply) -> bytes:
        return encode_embeddings(completion, reply)

    def encode_stream(self, reply: Reply) -> StreamEncoder:
        raise BadRequest("Embeddings are not streamed.")  # `decode` knows no streams

    def encode_error(self, error: ServiceError, request_id: str) -> bytes:
        return encode_error(error)

    def error_status(self, error: ServiceError) -> int:
        return error.status
