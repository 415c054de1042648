"""One life of the thread that owns MLX: it loads the model, runs it, and ends."""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from typing import ParamSpec, Protocol

import msgspec

from service.executor.runtime import Runtime, release_thread
from service.executor.scheduling.messages import Command, Delivery, Shutdown
from service.executor.scheduling.protocols import Renderer
from service.executor.scheduling.pulse import Pulse
from service.executor.scheduling.scheduler import Scheduler
from service.tallies import CallTally, DraftTally

log = logging.getLogger(__name__)

P = ParamSpec("P")

THREAD_NAME = "mlx"


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What the event loop needs of a loaded model. The rest stays on the worker's thread, and ends with it."""

    renderer: Renderer
    logits: int
    device: str
    tally: CallTally
    drafts: DraftTally


class Owner(Protocol):
    """Whom a worker reports to, on the event loop. Its last report is `load_failed` or `ended`."""

    def loaded(self, model: ServedModel) -> None: ...
    def receive(self, deliveries: list[Delivery]) -> None: ...
    def load_failed(self, reason: str) -> None: ...
    def ended(self, reason: str) -> None:
        """The thread is over. Nothing more comes from it; what it was given and has not answered, it never will."""
        ...


def is_left_behind() -> bool:
    """Whether a thread still runs a model that nobody waits for. A process that ends with it must not unwind: Python
    would take from it what it computes with."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())


class _LoadFailed(Exception):
    """The model could not be loaded; trying again would not help."""


class Worker:
    """`load` is called on the thread; `inbox` is what it works off until a `Shutdown`."""

    def __init__(
        self,
        load: Callable[[], Runtime],
        inbox: SimpleQueue[Command],
        owner: Owner,
        pulse: Pulse,
        *,
        max_concurrency: int,
    ) -> None:
        self._load = load
        self._inbox = inbox
        self._owner = owner
        self._pulse = pulse
        self._max_concurrency = max_concurrency
        self._release: Callable[[], None] = release_thread  # also where the model could be loaded in part alone
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    async def join(self, seconds: float) -> None:
        await asyncio.to_thread(self._thread.join, seconds)

    def describe(self) -> str:
        """Where the thread is now, for the log."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - documented, for debugging
        return "".join(traceback.format_stack(frame)) if frame is not None else "the thread has ended\n"

    def _run(self) -> None:
        report: Callable[[str], None] = self._owner.ended
        reason = "it was shut down"
        try:
            self._serve(self._load_model())
        except _LoadFailed as exc:
            report, reason = self._owner.load_failed, str(exc)
        except BaseException as exc:
            log.critical("The thread that runs the model has ended", exc_info=exc)
            reason = f"{type(exc).__name__}: {exc}"
        finally:
            try:
                self._release()
            finally:
                self._post(report, reason)

    def _load_model(self) -> Runtime:
        try:
            return self._load()
        except Exception as exc:
            log.exception("The model could not be loaded")
            raise _LoadFailed(str(exc)) from None

    def _serve(self, runtime: Runtime) -> None:
        self._release = runtime.release
        scheduler = Scheduler(
            runtime.engine,
            self._inbox,
            lambda deliveries: self._post(self._owner.receive, deliveries),
            runtime.open_writer,
            max_concurrency=runtime.max_concurrency or self._max_concurrency,
            pulse=self._pulse,
        )
        model = ServedModel(
            renderer=runtime.renderer,
            logits=runtime.logits,
            device=runtime.device,
            tally=runtime.tally,
            drafts=runtime.drafts,
        )
        self._post(self._owner.loaded, model)
        try:
            scheduler.run()
        finally:
            runtime.engine.close()

    def _post(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Calls a function on the event loop. Where the loop is gone, nobody is left to work for."""
        try:
            self._loop.call_soon_threadsafe(lambda: function(*args, **kwargs))
        except RuntimeError:
            self._inbox.put(Shutdown())
