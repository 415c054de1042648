"""Discards the part of a request's body that the app leaves unread, because Hypercorn's queue also holds the exchange's
end."""

import asyncio
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class UnreadBody:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_read = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_read = not message.get("more_body", False)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if self._is_read or message["type"] != "http.response.body" or message.get("more_body", False):
            return self._send(message)
        return self._send_and_discard(message)

    async def _send_and_discard(self, message: Message) -> None:
        discarding = asyncio.ensure_future(self._discard())
        try:
            await self._send(message)
        finally:
            discarding.cancel()

    async def _discard(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
