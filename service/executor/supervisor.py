"""Keeps the thread that runs the model alive, and everybody who was accepted answered. Lives on the event loop."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

import msgspec

from service.errors import EngineFailed, NotReady, ServiceError, ShuttingDown
from service.executor.answer import RunningAnswer
from service.executor.base import ModelState
from service.executor.runtime import Runtime
from service.executor.scheduling.messages import Abort, Command, Delivery, Progress, Sequence, Shutdown, Started, Submit
from service.executor.scheduling.pulse import Pulse
from service.executor.worker import ServedModel, Worker
from service.settings import Settings

log = logging.getLogger(__name__)

RESTARTS_AT_MOST = 3
RESTART_WINDOW_SECONDS = 600.0


class _InFlight:
    """A sequence that has been submitted, until its terminal message."""

    __slots__ = ("answer", "retried", "sent", "sequence")

    def __init__(self, sequence: Sequence, answer: RunningAnswer) -> None:
        self.sequence = sequence
        self.answer = answer
        self.sent = False
        self.retried = False


class Supervisor:
    """Runs `load`'s model on a `Worker`, and judges it by its `Pulse`.

    No progress for `stall_seconds` while something is in flight is `degraded`; for twice that, `unhealthy`, and those
    who wait get an error. Both end by themselves with the next progress: a thread cannot be interrupted, and may only
    be slow. A thread that ends is replaced, and the model loaded anew: sequences of which nothing was sent run again,
    once, the others end in `EngineFailed`. If that happens too often, or the model cannot be loaded, it stays
    `unhealthy`.
    """

    def __init__(self, model_id: str, load: Callable[[], Runtime], settings: Settings) -> None:
        self.pulse = Pulse()
        self.model: ServedModel | None = None
        self.settled = asyncio.Event()
        self._model_id = model_id
        self._load = load
        self._settings = settings
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._worker: Worker | None = None
        self._in_flight: dict[int, _InFlight] = {}
        self._restarts: deque[float] = deque()
        self._failure = ""
        self._restart_reason = ""
        self._closing = False
        # Progress is expected from then on, where the pulse tells of none that is later.
        self._expected_at = 0.0
        self._stall_told = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def state(self) -> ModelState:
        if self._failure:
            return "unhealthy"
        if self.model is None:
            return "loading"
        stalls = self._silence() / self._settings.stall_seconds
        return "healthy" if stalls < 1 else "degraded" if stalls < 2 else "unhealthy"

    @property
    def detail(self) -> str:
        """For people: why it is in this state."""
        if self._failure:
            return self._failure
        if self.model is None:
            return f"loading {self._model_id}" + (f" again. {self._restart_reason}" if self._restart_reason else "")
        return self.model.device if self.state == "healthy" else self._no_progress()

    def start(self) -> None:
        self._worker = Worker(self._load, self._inbox, self, self.pulse, max_concurrency=self._settings.max_concurrency)
        self._worker.start()

    async def aclose(self) -> None:
        """A thread that does not end within the grace period is left behind: it cannot be interrupted."""
        self._closing = True
        self.model = None
        self._inbox.put(Shutdown())
        if self._worker is not None:
            await self._worker.join(self._settings.shutdown_grace_seconds)
            if self._worker.alive:
                log.warning("The MLX thread is still busy and is left behind")
        self.settled.set()
        if self._timer is not None:
            self._timer.cancel()
        self._fail_everybody(ShuttingDown)
        self._in_flight.clear()

    def begin(self, sequences: list[Sequence], answer: RunningAnswer) -> None:
        """Raises `NotReady` where nobody is left to run them."""
        if self._failure:
            raise NotReady(self._failure)
        if not self._in_flight:
            self._expect_progress()
        for sequence in sequences:
            self._in_flight[sequence.id] = _InFlight(sequence, answer)
            self._inbox.put(Submit(sequence))

    def abort(self, sequences: list[int]) -> None:
        for sequence in sequences:
            self._inbox.put(Abort(sequence))

    def fail(self, reason: str) -> None:
        """What the model needs is gone, and its thread may not know yet, or hang for it."""
        if not self._closing and not self._failure:
            log.critical("The model cannot go on: %s", reason)
            self._give_up(f"The model cannot go on: {reason}. Restart the server.")

    # What the worker reports

    def loaded(self, model: ServedModel) -> None:
        if self._closing:
            return
        self.model = model
        self.settled.set()
        self._expect_progress()

    def receive(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if isinstance(delivery, Started | Progress):
                flight = self._in_flight.get(delivery.sequence)
            else:
                flight = self._in_flight.pop(delivery.sequence, None)
            if flight is not None:
                flight.sent |= not isinstance(delivery, Started)
                flight.answer.take(delivery)

    def load_failed(self, reason: str) -> None:
        self._give_up(f"The model {self._model_id} could not be loaded: {reason}")

    def ended(self, reason: str) -> None:
        if self._closing:
            return
        self.model = None
        self.settled.clear()
        self._inbox = SimpleQueue()
        reason = f"The thread that runs the model has ended: {reason}"
        if self._may_restart():
            self.pulse.restarts += 1
            self.pulse.running = 0
            self._restart_reason = reason
            self._run_again(reason)
            self.start()
        else:
            self._give_up(f"{reason}. It has ended {RESTARTS_AT_MOST + 1} times within {RESTART_WINDOW_SECONDS:g} s.")

    def _may_restart(self) -> bool:
        now = asyncio.get_running_loop().time()
        while self._restarts and self._restarts[0] <= now - RESTART_WINDOW_SECONDS:
            self._restarts.popleft()
        self._restarts.append(now)
        return len(self._restarts) <= RESTARTS_AT_MOST

    def _run_again(self, reason: str) -> None:
        """Puts into the new inbox what can be run again. Fails the others first: an answer fails as a whole."""
        for flight in self._in_flight.values():
            if flight.sent or flight.retried:
                flight.answer.fail(EngineFailed(f"{reason}. Try again."))
        self._inbox = SimpleQueue()
        self._in_flight = {i: flight for i, flight in self._in_flight.items() if not flight.answer.ended}
        start_before = asyncio.get_running_loop().time() + self._settings.queue_timeout_seconds
        for flight in self._in_flight.values():
            flight.retried = True
            flight.sequence = msgspec.structs.replace(flight.sequence, start_before=start_before)
            self._inbox.put(Submit(flight.sequence))

    def _give_up(self, failure: str) -> None:
        self._failure = failure
        self.model = None
        self.pulse.running = 0
        self.settled.set()
        self._fail_everybody(lambda: EngineFailed(failure))
        self._in_flight.clear()

    def _fail_everybody(self, error: Callable[[], ServiceError]) -> None:
        for answer in {flight.answer for flight in self._in_flight.values()}:
            answer.fail(error())

    # Progress

    def _silence(self) -> float:
        """How long progress has been expected in vain, in seconds."""
        if not self._in_flight or self.model is None:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() - max(self._expected_at, self.pulse.progress_at))

    def _no_progress(self) -> str:
        return f"no progress for {self._silence():.0f} s with {len(self._in_flight)} sequences in flight"

    def _expect_progress(self) -> None:
        loop = asyncio.get_running_loop()
        self._expected_at = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._settings.stall_seconds, self._check)

    def _check(self) -> None:
        """Runs `stall_seconds` after there was something to do, and again as long as there is."""
        self._timer = None
        silence, limit = self._silence(), self._settings.stall_seconds
        if silence < limit and self._stall_told:
            self._stall_told = False
            log.warning("The engine is making progress again")
        elif silence >= limit and not self._stall_told:
            self._stall_told = True
            stack = self._worker.describe() if self._worker is not None else ""
            log.error("The engine has made %s. Its thread is at:\n%s", self._no_progress(), stack)
        if silence >= 2 * limit:
            self._fail_everybody(lambda: EngineFailed(f"The engine has made {self._no_progress()}. Try again later."))
        if self._in_flight:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(limit - silence % limit, self._check)
