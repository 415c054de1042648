from typing import Literal

import msgspec

from service.dialects import sse
from service.dialects.base import Reply
from service.dialects.body_fields import UNREAD, Unread
from service.errors import ServiceError


class OpenAIError(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorBody(msgspec.Struct):
    error: OpenAIError


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: Unread = UNREAD


# The words of `reasoning_effort` and `tool_choice`.
EFFORTS = {effort: effort for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")}
MODES: dict[str, Literal["auto", "none", "required"]] = {"none": "none", "auto": "auto", "required": "required"}

DONE = sse.frame(b"[DONE]")
_ENCODER = msgspec.json.Encoder()


class OpenAIDialect:
    request_id_header = "x-request-id"

    def encode_error(self, error: ServiceError, request_id: str) -> bytes:
        # The request's id is not in the body: clients read it from `x-request-id`.
        return encode_error(error)

    def error_status(self, error: ServiceError) -> int:
        return error.status


class ChunkStream:
    """The end of a stream that consists of chunks and `[DONE]`."""

    def keep_alive(self) -> bytes:
        return sse.KEEP_ALIVE

    def fail(self, error: ServiceError) -> bytes:
        return sse.frame(encode_error(error)) + DONE


def encode_error(error: ServiceError) -> bytes:
    # OpenAI has two types of errors: the client's fault and the server's.
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return _ENCODER.encode(OpenAIErrorBody(OpenAIError(error.message, kind, error.param, error.code)))


def system_fingerprint(reply: Reply) -> str | None:
    return f"fp_{reply.fingerprint[:12]}" if reply.fingerprint else None
