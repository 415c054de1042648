"""Which calls an engine process gets, so that a request that ends processes ends few, and takes others with it once."""

from collections.abc import Iterable
from typing import TypeVar

from service.errors import AnswerLost, ServiceError, Unrunnable
from service.executor.process.pending_call import PendingCall

V = TypeVar("V")

REMEMBERED_REQUESTS = 256


class Quarantine:
    """If a process dies, the calls that it was working on become suspects, and so does a call that has been in two
    that died. Calls that only waited in it run again freely.

    Suspects run first, each alone in the process until it has come further than at the death. If that process dies
    too, the call is guilty: it fails, and every later call with the same request is refused. A call that has sent
    something is not run again, but its client may repeat it, and then it is a suspect.
    """

    def __init__(self) -> None:
        self._suspects: dict[bytes, int] = {}  # events at the death, by the digest of the request
        self._guilty: dict[bytes, str] = {}  # the ends of processes

    def clear(self) -> None:
        self._suspects.clear()
        self._guilty.clear()

    def check(self, call: PendingCall) -> None:
        """Called with every new call. Raises `Unrunnable`."""
        if not self._suspects and not self._guilty:
            return
        digest = call.digest()
        if digest in self._guilty:
            raise _unrunnable(self._guilty[digest])
        call.alone_until = self._suspects.get(digest)

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
                _remember(self._guilty, call.digest(), end)
                failing.append((call, _unrunnable(end)))
                continue
            if call in at_work or call.deaths > 1:
                call.alone_until = call.received
                _remember(self._suspects, call.digest(), call.received)
            if call.received:
                failing.append((call, AnswerLost(f"{end}. Try again.")))
        return failing


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


def _remember(entries: dict[bytes, V], digest: bytes, value: V) -> None:
    entries[digest] = value
    if len(entries) > REMEMBERED_REQUESTS:
        del entries[next(iter(entries))]


def _unrunnable(end: str) -> Unrunnable:
    return Unrunnable(f"{end}, while it ran this request alone. The request is not run again. Change it.")
