"""`/cache`: lists and empties the response cache. Only a single answer is shown with its content."""

from starlette.requests import Request
from starlette.responses import Response

from service.endpoints.context import ServiceContext
from service.http.query import read_limit
from service.http.responses import NO_STORE, json_response
from service.response_cache.upkeep import MOST_LISTED

LISTED = 200


class CacheEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._upkeep = context.executor.upkeep

    async def list(self, request: Request) -> Response:
        limit = read_limit(request, LISTED, MOST_LISTED)
        return json_response(await self._upkeep.list(limit), headers=NO_STORE)

    async def clear(self, _: Request) -> Response:
        return json_response({"removed": await self._upkeep.clear()})

    async def get(self, request: Request) -> Response:
        record = await self._upkeep.get(request.path_params["key"])
        return json_response({"stored_at": record.stored_at, "completion": record.completion}, headers=NO_STORE)

    async def remove(self, request: Request) -> Response:
        key = request.path_params["key"]
        await self._upkeep.remove(key)
        return json_response({"key": key, "removed": 1})
