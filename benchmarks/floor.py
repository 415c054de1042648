"""The floor under a response-cache hit: the least that the same server and framework could do with the same body.

A bare Starlette app under the service's own Hypercorn configuration decodes the body as JSON and returns stored bytes.
`python -m benchmarks.floor PORT NAME=LENGTH ...` serves `POST /NAME` with LENGTH bytes.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.server import bind, serve
from service.settings import Settings

Endpoint = Callable[[Request], Awaitable[Response]]


def floor_app(lengths: dict[str, int]) -> Starlette:
    routes = [Route(f"/{name}", _answering(b"x" * length), methods=["POST"]) for name, length in lengths.items()]
    return Starlette(routes=[*routes, Route("/health", _health)])


def _answering(stored: bytes) -> Endpoint:
    async def answer(request: Request) -> Response:
        msgspec.json.decode(await request.body())
        return Response(stored, media_type="application/json")

    return answer


async def _health(request: Request) -> Response:
    return Response(b"{}", media_type="application/json")


def main(port: str, *answers: str) -> None:
    lengths = {name: int(length) for name, _, length in (answer.partition("=") for answer in answers)}
    settings = Settings(home=Path(), port=int(port), shutdown_grace_seconds=0.0)
    asyncio.run(serve(floor_app(lengths), settings, bind(settings)))


if __name__ == "__main__":
    main(*sys.argv[1:])
