import asyncio
from collections.abc import Callable
from functools import partial

from service.errors import BadRequest, BodyTooLarge, ServiceError, Unrunnable
from service.events import Done
from service.executor.process.call_messages import (
    AbortCall,
    CallAccepted,
    CallEvents,
    CallFailed,
    CallFound,
    CallReading,
    to_error,
)
from service.executor.process.child import Child
from service.executor.process.frames import FrameTooLarge
from service.executor.process.pending_call import CallReply, PendingCall
from service.executor.process.quarantine import Quarantine, sendable


class EngineCalls:
    """Calls wait here while no process serves them, at most `patience_seconds`, and then get the error `too_late`.
    `used_at` is the loop's time when the last one ended, or a process began to serve."""

    def __init__(self, patience_seconds: float, too_late: Callable[[], ServiceError]) -> None:
        self.used_at = 0.0
        self._patience_seconds = patience_seconds
        self._too_late = too_late
        self._open: dict[int, PendingCall] = {}
        self._serving: Child | None = None
        self._quarantine = Quarantine()
        # Whether another request was answered since one was found guilty.
        self._works = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def sequences(self) -> int:
        return sum(call.sequences for call in self._open.values())

    def add(self, call: PendingCall) -> None:
        """Raises `Unrunnable`."""
        self._quarantine.check(call)
        self._open[call.message.call] = call
        self._send_next()
        self._limit_waits()

    def abort(self, call: PendingCall) -> None:
        if self._remove(call) and call.inside and self._serving is not None:
            self._serving.send(AbortCall(call.message.call))

    def serve(self, child: Child | None) -> None:
        """`child` gets the calls from now on."""
        self._serving = child
        if child is not None:
            self.used_at = asyncio.get_running_loop().time()  # a load can take longer than a model may be idle
        self._send_next()

    def lose(self, end: str) -> bool:
        """Returns whether a request was at fault: the engine has answered others since the last such request."""
        self.serve(None)
        at_fault = False
        for call, error in self._quarantine.blame(self._open.values(), end):
            self._end(call, error)
            at_fault |= isinstance(error, Unrunnable) and self._works
        self._works &= not at_fault
        self._limit_waits()
        return at_fault

    def end_all(self, error: Callable[[PendingCall], ServiceError]) -> None:
        # One error each: an exception collects the traceback of every place that raises it.
        self.serve(None)
        for call in list(self._open.values()):
            self._end(call, error(call))

    def begin_anew(self) -> None:
        """Forgets the deaths of processes."""
        self.used_at = asyncio.get_running_loop().time()
        self._quarantine.clear()

    def take(self, message: CallReply) -> None:
        call = self._open.get(message.call)
        if call is None:
            return
        match message:
            case CallReading(_, tokens):
                call.read_tokens = tokens
            case CallEvents(_, events):
                call.received += len(events)
                last = isinstance(events[-1], Done)
                if last:
                    self._works |= not call.suspected
                    self._remove(call)
                call.queue.put(events, last=last)
            case CallAccepted(_, tokens):
                call.accept(tokens)
            case CallFound(_, found):
                self._remove(call)
                call.accept(found)
            case CallFailed():
                self._end(call, to_error(message))
        ended = message.call not in self._open
        if call.alone_until is not None and (ended or call.received > call.alone_until):
            self._quarantine.acquit(call)
            self._send_next()

    def _send_next(self) -> None:
        if self._serving is not None:
            for call in sendable(self._open.values()):
                if not call.inside:  # the end of one that cannot be sent has sent the others
                    self._send(self._serving, call)

    def _limit_waits(self) -> None:
        for call in self._open.values():
            if not call.inside and call.deadline is None:
                end = partial(self._end, call, self._too_late())
                call.deadline = asyncio.get_running_loop().call_later(self._patience_seconds, end)

    def _send(self, child: Child, call: PendingCall) -> None:
        call.inside = True
        call.waits_no_longer()
        try:
            child.send(call.message)
        except FrameTooLarge as exc:
            self._end(call, BodyTooLarge(f"The request is too large for the engine: {exc}."))
        except (RecursionError, UnicodeError) as exc:
            self._end(call, BadRequest(f"The request cannot be passed to the engine: {exc}."))

    def _end(self, call: PendingCall, error: ServiceError) -> None:
        self._remove(call)
        call.fail(error)

    def _remove(self, call: PendingCall) -> bool:
        self.used_at = asyncio.get_running_loop().time()
        call.waits_no_longer()
        found = self._open.pop(call.message.call, None) is not None
        self._send_next()
        return found
