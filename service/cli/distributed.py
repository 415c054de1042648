"""One rank of `anyclaude serve --distributed` among the processes that `mlx.launch` has started."""

import logging
import os
import sys
from typing import NoReturn

from service.cli.exits import Exit, Failure
from service.cli.models import model_required
from service.executor.distributed.route import NotLaunched, launched_rank
from service.settings import Settings

log = logging.getLogger(__name__)


class LogProgress:
    def step(self, text: str) -> None:
        log.info("%s", text)

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        return None

    def finish(self) -> None:
        return None


def own_rank(settings: Settings) -> int:
    if settings.executor != "mlx" or settings.replay is not None:
        raise Failure(Exit.CONFIG, "--distributed runs a model: leave out --replay, and the scripted executor.")
    try:
        return launched_rank(os.environ)
    except NotLaunched as exc:
        raise Failure(Exit.USAGE, str(exc)) from None


def meet_others() -> None:
    """Waits for all ranks. Call it before fetching or reading the model, whose time differs between machines."""
    from service.executor.loading.model import prepare_libraries

    prepare_libraries()
    from service.executor.distributed.mlx_ranks import meet

    try:
        meet()
    except RuntimeError as exc:
        raise Failure(
            Exit.UNAVAILABLE,
            f"The ranks did not meet: {exc}. All have to start within some seconds, and reach each other at the "
            "addresses of the host file.",
        ) from None


def follow_rank_0(settings: Settings) -> NoReturn:
    """Runs until rank 0 ends. Exits with 0 if it ended normally."""
    from service.executor.distributed.follower import Follower
    from service.models.location import resolve_model
    from service.models.profile import read_profile

    with model_required():
        path = resolve_model(settings.model, settings.home, LogProgress())
        profile = read_profile(path, settings, home=settings.home)
    failure = Follower(path, profile, settings).run()
    if failure:
        log.error("This rank ends: %s", failure)
        end_now(Exit.UNAVAILABLE)
    sys.exit(0)


def end_now(code: int) -> NoReturn:
    """Exits at once. Python would wait for a thread that may wait for a lost rank for ever."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
