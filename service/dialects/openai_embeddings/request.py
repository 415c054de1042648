"""Decodes a request for embeddings. Null means absent."""

from typing import Annotated, Literal

import msgspec

from service.dialects.base import ClientRequest
from service.dialects.body_fields import UNREAD, FieldReader, Unread
from service.dialects.prompts import AskedPrompts, GivenPrompts, read_prompts
from service.generation import GenerationRequest


class EmbeddingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    input: GivenPrompts
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None

    user: Unread = UNREAD


class AskedVectors(AskedPrompts):
    """Each request is for the whole vector."""

    base64: bool = False
    dimensions: int | None = None


_BODY = FieldReader(EmbeddingRequest)


def read_request(body: bytes) -> ClientRequest:
    asked, others = _BODY.read(body)
    prompts = read_prompts(asked.input, "input")
    requests = tuple(
        GenerationRequest(
            messages=(),
            max_tokens=1,
            raw_prompt=msgspec.structs.replace(prompt, embeds=True),
            unread_fields=others.keyed,
        )
        for prompt in prompts
    )
    return ClientRequest(
        request=requests[0],
        model=asked.model,
        dialect_state=AskedVectors(requests, asked.encoding_format == "base64", asked.dimensions),
        unknown_fields=others.unknown,
    )
