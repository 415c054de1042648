"""`GET /dashboard/logs`: the last lines of the server's log."""

from starlette.requests import Request
from starlette.responses import Response

from service.errors import BadRequest
from service.http.responses import NO_STORE, json_response
from service.telemetry.log_ring import LogRing


class LogsEndpoint:
    def __init__(self, ring: LogRing) -> None:
        self._ring = ring

    async def read(self, request: Request) -> Response:
        """`after` is the number of the last line that the client has."""
        after = request.query_params.get("after", "0")
        if not after.isascii() or not after.isdecimal() or len(after) > 18:
            raise BadRequest("Expected 'after' to be the number of a line.", param="after")
        return json_response({"lines": self._ring.after(int(after))}, headers=NO_STORE)
