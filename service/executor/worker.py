import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from typing import ParamSpec

from service.executor.runtime import Runtime, SharedRuntime, release_thread
from service.executor.scheduling.messages import Command, Delivery, Shutdown
from service.executor.scheduling.places import Places
from service.executor.scheduling.pulse import Pulse
from service.executor.scheduling.scheduler import Scheduler
from service.models.errors import NoRoom
from service.settings import Settings

log = logging.getLogger(__name__)

P = ParamSpec("P")


class Worker:
    """The MLX thread. It calls `load`, then runs the commands of `inbox` until `Shutdown`. It reports to `loaded`,
    `receive` and, at last, `ended`, which run on the event loop."""

    def __init__(
        self,
        load: Callable[[], Runtime],
        inbox: SimpleQueue[Command],
        pulse: Pulse,
        settings: Settings,
        *,
        loaded: Callable[[SharedRuntime], None],
        receive: Callable[[list[Delivery]], None],
        ended: Callable[[str, bool], None],
    ) -> None:
        self._load = load
        self._inbox = inbox
        self._pulse = pulse
        self._settings = settings
        self._loaded, self._receive, self._ended = loaded, receive, ended
        self._release: Callable[[], None] = release_thread  # also frees a partly loaded model
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="mlx", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    async def join(self, seconds: float) -> None:
        await asyncio.to_thread(self._thread.join, seconds)

    def describe(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - documented, for debugging
        return "".join(traceback.format_stack(frame)) if frame is not None else "the thread has ended\n"

    def _run(self) -> None:
        reason, no_room = "it was shut down", False
        try:
            self._serve(self._load())
        except BaseException as exc:  # also SystemExit: `mlx_lm.models.olmo` exits when it is imported
            log.critical("The MLX thread has ended", exc_info=exc)
            reason = str(exc) if isinstance(exc, Exception) else f"{type(exc).__name__}: {exc}"
            no_room = isinstance(exc, NoRoom)
        finally:
            try:
                self._release()
            finally:
                self._post(self._ended, reason, no_room)

    def _serve(self, runtime: Runtime) -> None:
        self._release, settings = runtime.release, self._settings
        scheduler = Scheduler(
            runtime.engine,
            self._inbox,
            lambda deliveries: self._post(self._receive, deliveries),
            runtime.open_writer,
            places=Places(runtime.max_concurrency or settings.most_running, adapts=settings.max_concurrency == "auto"),
            pulse=self._pulse,
        )
        self._pulse.memory_bytes = runtime.engine.memory_bytes()
        self._pulse.prefix_cache_bytes = runtime.engine.prefix_cache_bytes()
        self._post(self._loaded, runtime.shared)
        try:
            scheduler.run(runtime.slices)
        finally:
            runtime.engine.close()

    def _post(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        # If the loop is closed, no request is left and the thread ends.
        try:
            self._loop.call_soon_threadsafe(lambda: function(*args, **kwargs))
        except RuntimeError:
            self._inbox.put(Shutdown())
