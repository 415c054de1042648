import asyncio
import logging
from collections.abc import Callable
from queue import SimpleQueue

from service.errors import EngineFailed, NotReady, ServiceError, ShuttingDown
from service.executor.answer import RunningAnswer
from service.executor.base import RETRY_AFTER_SECONDS, ModelState
from service.executor.runtime import Runtime, SharedRuntime
from service.executor.scheduling.messages import (
    Abort,
    Command,
    Delivery,
    Inspect,
    Inspected,
    Progress,
    PromptRead,
    Sequence,
    Shutdown,
    Started,
    Submit,
)
from service.executor.scheduling.pulse import Pulse
from service.executor.worker import Worker
from service.queries import PrefixBranch
from service.settings import Settings

log = logging.getLogger(__name__)


class Supervisor:
    """Runs `load`'s model on a `Worker`. Lives on the event loop.

    Without progress for `stall_seconds` while a sequence is in flight, the state is `degraded`. After twice that, or
    once the thread ends, it is `unhealthy` for good and all answers end in `EngineFailed`: a thread cannot be replaced,
    only its process.
    """

    def __init__(self, model_id: str, load: Callable[[], Runtime], settings: Settings) -> None:
        self.pulse = Pulse()
        self.model: SharedRuntime | None = None
        self.settled = asyncio.Event()
        self._model_id = model_id
        self._load = load
        self._settings = settings
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._worker: Worker | None = None
        self._in_flight: dict[int, RunningAnswer] = {}
        self._inspections: list[asyncio.Future[list[PrefixBranch]]] = []
        self.permanent = False
        self.no_room = False
        self._failure = ""
        self._closing = False
        # Progress is expected from this time, or from the pulse's last progress if that is later.
        self._expected_at = 0.0
        self._stall_logged = False
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
        return "healthy" if self._silence() < self._settings.stall_seconds else "degraded"

    @property
    def detail(self) -> str:
        if self._failure:
            return self._failure
        if self.model is None:
            return f"loading {self._model_id}"
        return self.model.device if self.state == "healthy" else self._no_progress(self._silence())

    def start(self) -> None:
        self._worker = Worker(
            self._load,
            self._inbox,
            self.pulse,
            self._settings,
            loaded=self._loaded,
            receive=self._receive,
            ended=self._ended,
        )

    async def aclose(self) -> None:
        """Leaves the thread behind if it does not end within the grace period."""
        self._closing = True
        self._inbox.put(Shutdown())
        if self._worker is not None:
            await self._worker.join(self._settings.shutdown_grace_seconds)
            if self._worker.alive:
                log.warning("The MLX thread is still busy and is left behind")
        self.settled.set()
        self._fail_everybody(ShuttingDown)

    def begin(self, sequences: list[Sequence], answer: RunningAnswer) -> None:
        """Raises `NotReady` after a failure."""
        if self._failure:
            raise NotReady(self._failure)
        if not self._in_flight:
            self._expect_progress()
        for sequence in sequences:
            self._in_flight[sequence.id] = answer
            self._inbox.put(Submit(sequence))

    def abort(self, sequences: list[int]) -> None:
        for sequence in sequences:
            self._inbox.put(Abort(sequence))

    async def prefixes(self) -> list[PrefixBranch]:
        """Raises `NotReady`."""
        if self._failure:
            raise NotReady(self._failure)
        found: asyncio.Future[list[PrefixBranch]] = asyncio.get_running_loop().create_future()
        self._inspections.append(found)
        self._inbox.put(Inspect())
        try:
            async with asyncio.timeout(self._settings.stall_seconds):
                return await found
        except TimeoutError:
            raise NotReady("The engine is busy. Try again later.", retry_after=RETRY_AFTER_SECONDS) from None

    def fail(self, reason: str) -> None:
        if self._closing or self._failure:
            return
        log.critical("%s", reason)
        self._failure = reason
        self.model = None
        self.pulse.running = 0
        self.settled.set()
        self._fail_everybody(lambda: EngineFailed(reason))

    # Reports of the worker

    def _loaded(self, model: SharedRuntime) -> None:
        if self._closing or self._failure:
            return
        self.model = model
        self.settled.set()
        self._expect_progress()

    def _receive(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if isinstance(delivery, Inspected):
                self._resolve_inspections(delivery.branches)
                continue
            if isinstance(delivery, Started | PromptRead | Progress):
                answer = self._in_flight.get(delivery.sequence)
            else:
                answer = self._in_flight.pop(delivery.sequence, None)
            if answer is not None:
                answer.take(delivery)

    def _ended(self, reason: str, no_room: bool) -> None:
        if self.model is None:
            self.permanent, self.no_room = not no_room, no_room
            self.fail(f"The model {self._model_id} could not be loaded: {reason}")
        else:
            self.fail(f"The MLX thread has ended: {reason}")

    def _fail_everybody(self, error: Callable[[], ServiceError]) -> None:
        # One error each: an exception collects the traceback of every place that raises it.
        if self._timer is not None:
            self._timer.cancel()
        for answer in set(self._in_flight.values()):
            answer.fail(error())
        self._in_flight.clear()
        for found in self._inspections:
            if not found.done():
                found.set_exception(error())
        self._inspections.clear()

    def _resolve_inspections(self, branches: list[PrefixBranch]) -> None:
        for found in self._inspections:
            if not found.done():
                found.set_result(branches)
        self._inspections.clear()

    # Progress

    def _silence(self) -> float:
        """Seconds without expected progress."""
        if not self._in_flight or self.model is None:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() - max(self._expected_at, self.pulse.progress_at))

    def _no_progress(self, silence: float) -> str:
        return f"no progress for {silence:.0f} s with {len(self._in_flight)} sequences in flight"

    def _expect_progress(self) -> None:
        loop = asyncio.get_running_loop()
        self._expected_at = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._settings.stall_seconds, self._check)

    def _check(self) -> None:
        timer, self._timer = self._timer, None
        now = asyncio.get_running_loop().time()
        if timer is not None and now - timer.when() >= self._settings.stall_seconds:
            self._expected_at = now  # the whole process stood still, as in a paused container
        silence, limit = self._silence(), self._settings.stall_seconds
        if silence < limit and self._stall_logged:
            self._stall_logged = False
            log.warning("The engine is making progress again")
        elif silence >= limit and not self._stall_logged:
            self._stall_logged = True
            stack = self._worker.describe() if self._worker is not None else ""
            log.error("The engine has made %s. Its thread is at:\n%s", self._no_progress(silence), stack)
        if silence >= 2 * limit:
            self.fail(f"The engine has made {self._no_progress(silence)}.")
        elif self._in_flight:
            self._timer = asyncio.get_running_loop().call_later(limit - silence % limit, self._check)
