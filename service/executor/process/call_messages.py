"""The server sends `StartEngine` first. `CallAccepted`, `CallReading`, and `CallEvents` up to a `Done` answer a
`SubmitCall`, `CallFound` the other calls, and `CallFailed` any call. Nothing follows an `AbortCall`."""

from typing import Any

import msgspec

from service import errors
from service.device.memory import LoadNeeds
from service.errors import ServiceError
from service.events import Event
from service.executor.base import ExecutorStatus
from service.generation import GenerationRequest
from service.profile import ModelProfile
from service.queries import Finding, Query
from service.settings import Settings


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`factory` is `module:function`; it takes this Struct and returns an `Executor`."""

    factory: str
    profile: ModelProfile
    settings: Settings
    model_path: str = ""
    needs: LoadNeeds = LoadNeeds()
    options: dict[str, Any] = {}


class _Message(msgspec.Struct, frozen=True, array_like=True): ...


class _CallMessage(_Message, frozen=True):
    call: int


class StartEngine(_Message, frozen=True, tag="start"):
    spec: EngineSpec


class SubmitCall(_CallMessage, frozen=True, tag="submit"):
    request: GenerationRequest


class CountCall(_CallMessage, frozen=True, tag="count"):
    request: GenerationRequest


class QueryCall(_CallMessage, frozen=True, tag="query"):
    query: Query


class AbortCall(_CallMessage, frozen=True, tag="abort"): ...


class CloseEngine(_Message, frozen=True, tag="close"): ...


ToEngine = StartEngine | SubmitCall | CountCall | QueryCall | AbortCall | CloseEngine


class StatusReport(_Message, frozen=True, tag="s"):
    """Sent with every change, and as a sign of life."""

    status: ExecutorStatus


class CallAccepted(_CallMessage, frozen=True, tag="a"):
    prompt_tokens: int


class CallReading(_CallMessage, frozen=True, tag="b"):
    """It waits no longer: `tokens` of its prompt are read."""

    tokens: int


class CallEvents(_CallMessage, frozen=True, tag="e"):
    events: list[Event]


class CallFound(_CallMessage, frozen=True, tag="q"):
    """`found` answers a query, or is a number of tokens."""

    found: Finding | int


class CallFailed(_CallMessage, frozen=True, tag="f"):
    """`kind` names a class in `service.errors`; `fields` are the error's attributes."""

    kind: str
    message: str
    fields: dict[str, Any]


ToServer = StatusReport | CallAccepted | CallReading | CallEvents | CallFound | CallFailed


def failed(call: int, error: ServiceError) -> CallFailed:
    return CallFailed(call, type(error).__name__, str(error), vars(error))


def to_error(failure: CallFailed) -> ServiceError:
    """An unknown kind becomes an `InternalError`."""
    kind = getattr(errors, failure.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, ServiceError)):
        kind = errors.InternalError
    error = kind.__new__(kind, failure.message)  # not __init__: some classes build their message from other arguments
    error.__dict__.update({"message": failure.message, "param": None, "retry_after": None} | failure.fields)
    return error
