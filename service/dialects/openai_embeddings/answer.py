import math
from array import array
from base64 import b64decode, b64encode
from collections.abc import Sequence

import msgspec

from service.dialects.base import Reply
from service.dialects.openai_embeddings.request import AskedVectors
from service.errors import BadRequest
from service.generation import Completion


class WireEmbedding(msgspec.Struct, kw_only=True):
    object: str = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[WireEmbedding]
    model: str
    usage: EmbeddingUsage


_ENCODER = msgspec.json.Encoder()


def encode_embeddings(completion: Completion, reply: Reply) -> bytes:
    """Raises `BadRequest` if the model's vectors have fewer dimensions than the request asks for."""
    asked = reply.dialect_state
    assert isinstance(asked, AskedVectors)  # noqa: S101  (this dialect put it there)
    vectors = [_shortened(b64decode(choice.text), asked.dimensions) for choice in completion.choices]
    tokens = completion.usage.prompt_tokens
    return _ENCODER.encode(
        EmbeddingList(
            data=[
                WireEmbedding(index=i, embedding=_base64(vector) if asked.base64 else list(vector))
                for i, vector in enumerate(vectors)
            ],
            model=reply.model,
            usage=EmbeddingUsage(tokens, tokens),
        )
    )


def _shortened(vector: bytes, dimensions: int | None) -> Sequence[float]:
    """Returns the first numbers of a vector, scaled to length 1 again."""
    numbers = array("f", vector)
    if dimensions is None or dimensions == len(numbers):
        return numbers
    if dimensions > len(numbers):
        raise BadRequest.at("dimensions", f"this model's embeddings have {len(numbers)}, found {dimensions}.")
    first = numbers[:dimensions]
    length = math.sqrt(sum(number * number for number in first))
    return array("f", (number / length if length else number for number in first))


def _base64(vector: Sequence[float]) -> str:
    return b64encode(array("f", vector).tobytes()).decode()
