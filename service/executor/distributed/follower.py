import logging
import signal
import threading
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

import msgspec

from service.executor.distributed.calls import Terms, decode
from service.executor.distributed.ranks import RankLost
from service.executor.distributed.repeat_calls import repeat_calls
from service.executor.runtime import Runtime, load_runtime, release_thread
from service.executor.scheduling.messages import Grammar
from service.generation import GenerationRequest
from service.profile import ModelProfile
from service.settings import Settings

log = logging.getLogger(__name__)

# The MLX thread may take this long to end after a rank was lost, because it may wait for that rank.
UNWIND_SECONDS = 5.0

# After a signal, this rank waits for rank 0 this much longer than rank 0's own grace period.
SIGNAL_SECONDS = 10.0


class Unlike(Exception): ...


class Follower:
    """After a signal it waits for rank 0, which gets the same signals, to end first."""

    def __init__(self, path: Path, profile: ModelProfile, settings: Settings) -> None:
        self._path = path
        self._profile = profile
        self._settings = settings
        # No threading.Event: a signal's handler would wait for the lock of the `wait` that it interrupts.
        self._over: SimpleQueue[None] = SimpleQueue()
        self._signals = 0
        self._failure = "it received a signal to end, and rank 0 did not end"
        self._thread = threading.Thread(target=self._run, name="mlx", daemon=True)

    def run(self) -> str:
        """Runs in the main thread. Returns the reason of a failure, else "". The MLX thread may still hang."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        self._thread.start()
        self._over.get()
        self._thread.join(UNWIND_SECONDS)
        return self._failure

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            self._over.put(None)
            return
        log.info("Received a signal to end; waiting for rank 0 to end first")
        patience = threading.Timer(self._settings.shutdown_grace_seconds + SIGNAL_SECONDS, self._over.put, (None,))
        patience.daemon = True
        patience.start()

    def _lose(self, reason: str) -> None:
        self._failure = reason
        self._over.put(None)

    def _run(self) -> None:
        try:
            self._follow()
        except RankLost as exc:
            self._failure = str(exc)
        except Exception as exc:
            log.exception("This rank has failed")
            self._failure = f"{type(exc).__name__}: {exc}"
        else:
            self._failure = ""
        finally:
            release_thread()
            self._over.put(None)

    def _follow(self) -> None:
        from service.executor.distributed.mlx_ranks import join_ranks
        from service.executor.distributed.rank_division import RankDivision, versions

        ranks = join_ranks(self._lose)
        try:
            message = ranks.hear()
            if message is None:
                return
            settings = accept(decode(message), versions(), self._profile.fingerprint, self._settings)
            runtime = load_runtime(self._path, self._profile, settings, RankDivision(ranks, settings.parallel))
            repeat_calls(runtime.engine, ranks, lambda request: grammar_of(runtime, request))
        except Exception as exc:
            ranks.fail(f"rank {ranks.rank} has failed: {exc}")
            raise


def accept(terms: object, versions: dict[str, str], fingerprint: str, settings: Settings) -> Settings:
    """Returns `settings` with rank 0's shared ones. Raises `Unlike`."""
    if not isinstance(terms, Terms):
        raise Unlike(f"expected rank 0's terms first, found {type(terms).__name__}")
    for package, version in terms.versions.items():
        if versions.get(package) != version:
            raise Unlike(f"rank 0 runs {package} {version}, this rank {versions.get(package)}. Install the same one")
    if terms.fingerprint != fingerprint:
        raise Unlike("this rank's model is not rank 0's: its files differ. Copy them, or let both fetch the same model")
    return msgspec.structs.replace(settings, **terms.settings)


def grammar_of(runtime: Runtime, request: GenerationRequest) -> Grammar | None:
    # The grammar follows from the request alone; the prompt's tokens come from rank 0.
    return runtime.shared.renderer.render(request).grammar
