"""`python -m benchmarks.floor PORT NAME=LENGTH ...` serves `POST /NAME` with LENGTH stored bytes.

This is the least work that the same server and framework could do for a hit: a bare Starlette app decodes the body as
JSON and returns stored bytes.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.http_client import HOST

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
    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.keep_alive_max_requests = sys.maxsize
    asyncio.run(serve(cast(ASGIFramework, floor_app(lengths)), config))


if __name__ == "__main__":
    main(*sys.argv[1:])
