import logging
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from service.executor.distributed.calls import Terms, encode
from service.executor.distributed.leading_engine import LeadingEngine
from service.executor.distributed.ranks import RankLost
from service.executor.runtime import Runtime, load_runtime
from service.profile import ModelProfile
from service.settings import Settings

log = logging.getLogger(__name__)

# These settings change what an engine computes. Rank 0's apply to all ranks.
SHARED_SETTINGS = (
    "max_concurrency",
    "prefill_chunk_tokens",
    "prefix_memory_bytes",
    "dequantize_on_cpu",
    "parallel",
    "prompt_lookup",
    "draft_model",
)


class Leader:
    """Imports MLX only when it loads."""

    def __init__(self) -> None:
        self.lost = ""
        self._lock = threading.Lock()
        self._loaded = False
        self._on_loss: Callable[[str], None] = lambda reason: None

    def watch(self, on_loss: Callable[[str], None]) -> None:
        self._on_loss = on_loss

    def load(self, path: Path, profile: ModelProfile, settings: Settings) -> Runtime:
        """Raises `RankLost` on a second call, because ranks that lost each other cannot connect again."""
        if self._loaded:
            raise RankLost(f"{self.lost or 'the engine has failed'}; all ranks have to be started again")
        self._loaded = True
        from service.executor.distributed.mlx_ranks import join_ranks
        from service.executor.distributed.rank_division import RankDivision, versions

        ranks = join_ranks(self._lose)
        try:
            settings = without_drafts(settings)
            common = {name: getattr(settings, name) for name in SHARED_SETTINGS}
            terms = Terms(versions=versions(), fingerprint=profile.fingerprint, settings=common)
            ranks.tell(encode(terms))
            runtime = load_runtime(path, profile, settings, RankDivision(ranks, settings.parallel))
        except Exception as exc:
            ranks.fail(f"rank 0 could not load the model: {exc}")
            raise
        engine = LeadingEngine(runtime.engine, ranks)
        shared = msgspec.structs.replace(runtime.shared, device=f"{runtime.shared.device}, {ranks.size} ranks")
        return msgspec.structs.replace(runtime, engine=engine, shared=shared)

    def _lose(self, reason: str) -> None:
        with self._lock:
            self.lost = reason
        self._on_loss(reason)


def without_drafts(settings: Settings) -> Settings:
    # Drafting depends on each machine's memory and changes what is computed.
    if settings.draft_model is not None:
        log.warning("Speculation is off with several ranks: draftModel is ignored")
    return msgspec.structs.replace(settings, prompt_lookup=False, draft_model=None)
