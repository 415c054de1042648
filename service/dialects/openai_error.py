import msgspec

from service.errors import ServiceError


class OpenAIError(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorBody(msgspec.Struct):
    error: OpenAIError


_ENCODER = msgspec.json.Encoder()


def encode_error(error: ServiceError) -> bytes:
    # OpenAI has two types of errors: the client's fault and the server's.
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return _ENCODER.encode(OpenAIErrorBody(OpenAIError(error.message, kind, error.param, error.code)))
