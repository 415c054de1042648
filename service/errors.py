"""The error tree. Each class has its HTTP status and code. Messages give what was expected, found, where, and what to
do next."""

from typing import ClassVar, Self

# Error messages cut text of a client to this length.
SHOWN_CHARS = 100


class ServiceError(Exception):
    """`param` names the field at fault (`messages[0].content`). `retry_after` is in seconds. Official clients repeat a
    5xx unless it is `final`."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    final: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class BadRequest(ServiceError):
    status = 400
    code = "invalid_value"

    @classmethod
    def at(cls, param: str, problem: str) -> Self:
        """`problem` is the rest of the sentence: what was expected and found."""
        return cls(f"Invalid '{param}': {problem}", param=param)


class InvalidJson(BadRequest):
    code = "invalid_json"


class InvalidType(BadRequest):
    code = "invalid_type"


class MissingParameter(BadRequest):
    code = "missing_required_parameter"

    def __init__(self, param: str) -> None:
        super().__init__(f"Missing required parameter: '{param}'.", param=param)


class UnsupportedValue(BadRequest):
    code = "unsupported_value"


class ThreadUnsupported(UnsupportedValue):
    """Anthropic's clients recognize the code and send the whole conversation."""

    code = "thread_unsupported_request"


class NotRecorded(BadRequest):
    """Clients take a 404 for a wrong model, and repeat a 5xx, so this is a 400."""

    code = "not_recorded"


class Unrunnable(BadRequest):
    """The request ends the process that runs it."""

    code = "unrunnable_request"


class ContextLengthExceeded(BadRequest):
    """Counts are in tokens. `estimated`: the prompt was too long to count."""

    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int, context_length: int, *, estimated: bool = False) -> None:
        count = f"about {prompt_tokens}" if estimated else prompt_tokens
        super().__init__(
            f"This model's maximum context length is {context_length} tokens, but the prompt has {count}. "
            "Shorten the messages or the tools.",
            param="messages",
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class InvalidApiKey(ServiceError):
    status = 401
    code = "invalid_api_key"


class HostRefused(ServiceError):
    status = 403
    code = "host_refused"


class UnknownPath(ServiceError):
    status = 404
    code = "unknown_url"


class ModelNotFound(ServiceError):
    status = 404
    code = "model_not_found"


class ResponseGone(ServiceError):
    status = 404
    code = "response_not_found"

    def __init__(self, response_id: str) -> None:
        super().__init__(f"The response {response_id[:SHOWN_CHARS]!r} is not stored here, or not any more.")


class AnswerGone(ServiceError):
    status = 404
    code = "answer_not_found"


class TraceGone(ServiceError):
    status = 404
    code = "trace_not_found"


class PreviousResponseGone(BadRequest):
    code = "previous_response_not_found"

    def __init__(self, response_id: str) -> None:
        super().__init__(
            f"The response {response_id[:SHOWN_CHARS]!r} is not stored here, or not any more. Send the whole "
            "conversation as 'input', without 'previous_response_id'.",
            param="previous_response_id",
        )


class MethodNotAllowed(ServiceError):
    status = 405
    code = "method_not_allowed"


class BodyTimeout(ServiceError):
    status = 408
    code = "request_timeout"


class BodyTooLarge(ServiceError):
    status = 413
    code = "request_too_large"


class UnsupportedMediaType(ServiceError):
    status = 415
    code = "unsupported_media_type"


class InternalError(ServiceError):
    """A defect of ours. The message contains only the request id; the log has the details."""


class EngineFailed(ServiceError):
    status = 500
    code = "engine_failed"


class AnswerLost(EngineFailed):
    """The engine failed within the answer. Another run may succeed."""


class SummaryFailed(ServiceError):
    status = 500
    code = "summary_failed"
    final = True


class Overloaded(ServiceError):
    status = 503
    code = "overloaded"


class NotReady(ServiceError):
    status = 503
    code = "not_ready"


class StoreUnavailable(ServiceError):
    """The response cache's store failed. Generation goes on without it."""

    status = 503
    code = "store_unavailable"


class ShuttingDown(ServiceError):
    status = 503
    code = "shutting_down"

    def __init__(self, message: str = "The server is shutting down.") -> None:
        super().__init__(message)


class GenerationTimeout(ServiceError):
    status = 504
    code = "generation_timeout"
    final = True


class NotCached(ServiceError):
    """`Cache-Control: only-if-cached` (RFC 9111 section 5.2.1.7) without a stored answer."""

    status = 504
    code = "not_cached"
    final = True
