import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.cache_headers import forbids_storing
from service.http.traces import Exchange, TraceWriter

RECORDED_PREFIX = "/v1/"


class TraceRecorder:
    def __init__(self, app: ASGIApp, writer: TraceWriter) -> None:
        self._app = app
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        recorded = scope["type"] == "http" and scope["path"].startswith(RECORDED_PREFIX)
        if not recorded or forbids_storing(scope["state"]["headers"]):
            await self._app(scope, receive, send)
            return
        started = time.time()
        asked: list[bytes] = []
        answered: list[bytes] = []
        head: Message = {"status": 0, "headers": []}

        async def recorded_receive() -> Message:
            message = await receive()
            asked.append(message.get("body", b""))
            return message

        async def recorded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
            else:
                answered.append(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, recorded_receive, recorded_send)
        finally:
            self._writer.write(
                Exchange(
                    request_id=scope["state"]["request_id"],
                    started=started,
                    method=scope["method"],
                    path=scope["path"],
                    request_headers=_texts(scope["headers"]),
                    request_body=b"".join(asked),
                    status=head["status"],
                    response_headers=_texts(head["headers"]),
                    response_body=b"".join(answered),
                )
            )


def _texts(headers: list[tuple[bytes, bytes]]) -> Mapping[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
