import asyncio
import logging
import time
from pathlib import Path

import msgspec

from service.errors import ServiceError
from service.executor.base import Executor, collect
from service.http.request_headers import caller_of
from service.normalize import normalize
from service.request_files import NoRequest, read_request_file
from service.settings import Settings

log = logging.getLogger(__name__)


async def warm(executor: Executor, settings: Settings) -> None:
    """Reads the prompts of `settings.warm` one after another. A bad file is logged and skipped."""
    caller = caller_of(settings.api_key) if settings.require_api_key else ""
    for path in map(Path, settings.warm):
        started = time.perf_counter()
        try:
            file = await asyncio.to_thread(read_request_file, path)
            request = normalize(file.decode(executor.profile.sampling))
            request = msgspec.structs.replace(request, max_tokens=0, n=1, caller=caller)
            usage = (await collect((await executor.submit(request)).events())).usage
        except (NoRequest, OSError, ServiceError) as exc:
            log.warning("The prefix cache is not warmed with %s: %s", path, exc)
        else:
            seconds = time.perf_counter() - started
            log.info("The prefix cache is warmed with %s: %d tokens, %.1f s", path, usage.prompt_tokens, seconds)
