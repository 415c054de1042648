"""`python -m tests.deployment.slow_server PORT`: the service as configured here, with an executor that is slow."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from service.app import create_app
from service.config import load_configuration
from service.events import Event
from service.executor.scripted import ScriptedExecutor, echo
from service.generation import GenerationRequest
from service.server.server import serve

WORD_SECONDS = 0.002


async def slowly(request: GenerationRequest) -> AsyncIterator[str | Event]:
    async for word in echo(request):
        await asyncio.sleep(WORD_SECONDS)
        yield word


def main(port: str) -> None:
    settings = load_configuration({"port": int(port)}, os.environ, Path.cwd(), Path.home()).settings
    executor = ScriptedExecutor(slowly, concurrency=settings.max_concurrency)
    asyncio.run(serve(create_app(settings, executor=executor), settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
