"""`GET /prefix-cache`: the prefix cache of each loaded model, without content."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from service.endpoints.context import ServiceContext
from service.errors import ServiceError
from service.http.responses import NO_STORE, json_response
from service.queries import ListPrefixes, PrefixBranch, PrefixesFound
from service.response_cache.caching_executor import CachingExecutor

MOST_BRANCHES = 300


class ModelPrefixes(msgspec.Struct, frozen=True, kw_only=True):
    """`complete` is false if there are more branches. `detail`: why there are none."""

    model: str
    branches: list[PrefixBranch] = []
    complete: bool = True
    detail: str = ""


class PrefixCacheEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def read(self, _: Request) -> Response:
        models = [await _prefixes(name, executor) for name, executor in self._context.registry.executors.items()]
        return json_response({"models": models}, headers=NO_STORE)


async def _prefixes(name: str, executor: CachingExecutor) -> ModelPrefixes:
    if not executor.status().loaded:  # a query would load it
        return ModelPrefixes(model=name, detail="The model is not loaded.")
    try:
        found = await executor.ask(ListPrefixes())
    except ServiceError as error:
        return ModelPrefixes(model=name, detail=str(error))
    assert isinstance(found, PrefixesFound)  # noqa: S101  (what the query finds)
    return ModelPrefixes(
        model=name, branches=found.branches[:MOST_BRANCHES], complete=len(found.branches) <= MOST_BRANCHES
    )
