"""`GET /dashboard/traces/ID`: a request and its answer, at debug level 2."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from service.endpoints.context import ServiceContext
from service.errors import TraceGone
from service.http.responses import NO_STORE
from service.http.traces import find_trace


class TracesEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._settings = context.settings

    async def read(self, request: Request) -> Response:
        if self._settings.debug_level < 2:
            raise TraceGone("Requests and answers are kept at debug level 2 only: set debug.level to 2.")
        folder, name = self._settings.home / "traces", request.path_params["id"]
        trace = await asyncio.to_thread(find_trace, folder, name)
        if trace is None:
            raise TraceGone("This request has no trace, or no longer one: the oldest are removed.")
        return Response(trace, media_type="application/json", headers=NO_STORE)
