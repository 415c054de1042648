"""Which calls an engine process gets, so that a request that ends processes ends few, and takes others with it once."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from service.errors import AnswerLost, ServiceError, Unrunnable
from service.executor.process.pending_call import PendingCall

REMEMBERED_REQUESTS = 256

# The memory of the machine, or another request, may have been at fault. A new trial costs at most one process.
REFUSED_SECONDS = 600.0

# Events that a process may have made and not delivered when it died.
UNDELIVERED_EVENTS = 64


class Suspect(NamedTuple):
    """`alone_until` and `end` are of the last process that died."""

    alone_until: int
    end: str
    refused_until: float


class Quarantine:
    """The calls that a process was working on when it died become suspects, and so does one that waited in two that
    died. Suspects run first, each alone until it has come further than at the death.

    If that process dies too, the call fails, and its request is refused for `REFUSED_SECONDS`; then it is a suspect
    again. A call that has sent something is not run again, but its client may repeat it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._suspects: dict[bytes, Suspect] = {}  # by the digest of the request

    def clear(self) -> None:
        self._suspects.clear()

    def check(self, call: PendingCall) -> None:
        """Called with every new call. Raises `Unrunnable`."""
        suspect = self._suspects.get(call.digest()) if self._suspects else None
        if suspect is None:
            return
        if self._clock() < suspect.refused_until:
            raise _unrunnable(suspect.end)
        call.alone_until = suspect.alone_until

    def acquit(self, call: PendingCall) -> None:
        call.alone_until = None
        self._suspects.pop(call.digest(), None)

    def blame(self, calls: Iterable[PendingCall], end: str) -> list[tuple[PendingCall, ServiceError]]:
        """Called when a process has died. Returns the calls that fail, and their errors."""
        inside = [call for call in calls if call.inside]
        at_work = [call for call in inside if call.started or call.received] or inside
        failing: list[tuple[PendingCall, ServiceError]] = []
        for call in inside:
            call.inside, call.read_tokens = False, None
            call.deaths += 1
            if call.suspected:
                self._remember(call, end, refused_until=self._clock() + REFUSED_SECONDS)
                failing.append((call, _unrunnable(end)))
                continue
            if call in at_work or call.deaths > 1:
                call.alone_until = _surely_behind(call)
                self._remember(call, end)
            if call.received:
                failing.append((call, AnswerLost(f"{end}. Try again.")))
        return failing

    def _remember(self, call: PendingCall, end: str, refused_until: float = 0.0) -> None:
        self._suspects[call.digest()] = Suspect(_surely_behind(call), end, refused_until)
        if len(self._suspects) > REMEMBERED_REQUESTS:
            del self._suspects[next(iter(self._suspects))]


def sendable(calls: Iterable[PendingCall]) -> list[PendingCall]:
    """Returns the calls that the process may get now."""
    inside: list[PendingCall] = []
    outside: list[PendingCall] = []
    for call in calls:
        (inside if call.inside else outside).append(call)
    suspects = [call for call in outside if call.suspected]
    if any(call.suspected for call in inside) or (suspects and inside):
        return []
    return suspects[:1] or outside


def _surely_behind(call: PendingCall) -> int:
    # The first event is delivered at once.
    return call.received + UNDELIVERED_EVENTS if call.received else 0


def _unrunnable(end: str) -> Unrunnable:
    minutes = f"{REFUSED_SECONDS / 60:g} minutes"
    return Unrunnable(f"{end}, while it ran this request alone. The request is refused for {minutes}. Change it.")
