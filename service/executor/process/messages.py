"""What crosses the socket between the server and an engine process.

The server sends `StartEngine` first. Every `SubmitCall` is answered by `CallAccepted` and then `CallEvents` up to a
`Done`, every `CountCall` by `CallCounted`, every `QueryCall` by `CallFound`; `CallFailed` ends any of them instead.
Nothing follows an `AbortCall`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from service import errors
from service.errors import ServiceError
from service.events import Event
from service.executor.base import ExecutorStatus
from service.generation import GenerationRequest
from service.profile import ModelProfile
from service.queries import Finding, Query
from service.settings import Settings


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Which executor an engine process runs. `factory` is `module:function`; it is called with this Struct and returns
    an `Executor`. `weight_bytes` is the size of the model's files. `options` are for factories that need more."""

    factory: str
    profile: ModelProfile
    settings: Settings
    model_path: str = ""
    weight_bytes: int = 0
    options: dict[str, Any] = {}


class StartEngine(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    spec: EngineSpec


class SubmitCall(msgspec.Struct, frozen=True, array_like=True, tag="submit"):
    call: int
    request: GenerationRequest


class CountCall(msgspec.Struct, frozen=True, array_like=True, tag="count"):
    """Count the tokens of the request's prompt."""

    call: int
    request: GenerationRequest


class QueryCall(msgspec.Struct, frozen=True, array_like=True, tag="query"):
    call: int
    query: Query


class AbortCall(msgspec.Struct, frozen=True, array_like=True, tag="abort"):
    call: int


class CloseEngine(msgspec.Struct, frozen=True, array_like=True, tag="close"):
    """Close the executor, then end."""


ToEngine = StartEngine | SubmitCall | CountCall | QueryCall | AbortCall | CloseEngine


class StatusReport(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """Comes with every change, and otherwise often enough to show that the process is alive."""

    status: ExecutorStatus


class CallAccepted(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    call: int
    prompt_tokens: int


class CallEvents(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    call: int
    events: list[Event]


class CallCounted(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    call: int
    tokens: int


class CallFound(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    call: int
    finding: Finding


class CallFailed(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """`kind` is the name of a class in `service.errors`, `fields` are the attributes of the error."""

    call: int
    kind: str
    message: str
    fields: dict[str, Any]


ToServer = StatusReport | CallAccepted | CallEvents | CallCounted | CallFound | CallFailed


def failed(call: int, error: ServiceError) -> CallFailed:
    return CallFailed(call, type(error).__name__, str(error), vars(error))


def to_error(failure: CallFailed) -> ServiceError:
    """The error as it was raised in the engine process. An unknown kind is an `InternalError`."""
    kinds = {kind.__name__: kind for kind in _kinds(ServiceError)}
    kind = kinds.get(failure.kind, errors.InternalError)
    error = kind.__new__(kind, failure.message)  # not __init__: some classes make their message from other arguments
    error.__dict__.update({"message": failure.message, "param": None, "retry_after": None} | failure.fields)
    return error


def _kinds(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
