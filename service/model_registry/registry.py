from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec

from service.errors import SHOWN_CHARS, BadRequest, ModelNotFound
from service.executor.base import Executor
from service.executor.process.engine_process import EngineProcess
from service.model_registry.residency import Residency
from service.models.names import SERVED_ALIASES
from service.response_cache.caching_executor import CachingExecutor

# Names of Anthropic's and OpenAI's models. Clients ask for one by default.
CLOUD_MODELS = ("claude-", "gpt-", "chatgpt-", "text-embedding-")


class ServedName(msgspec.Struct):
    model: str | None = None


class ModelRegistry:
    """`executors` are by configured name, the default first. `cached` is the response cache around it. Without
    `aliases`, names of Claude's and OpenAI's models mean the default."""

    def __init__(
        self,
        executors: Mapping[str, Executor],
        cached: CachingExecutor,
        *,
        aliases: Mapping[str, str] | None = None,
        residency: Residency | None = None,
    ) -> None:
        self.default = cached
        self.executors = {
            name: cached if i == 0 else cached.around(executor) for i, (name, executor) in enumerate(executors.items())
        }
        self._engines = {name: each for name, each in executors.items() if isinstance(each, EngineProcess)}
        self._by_name = _by_name(self.executors)
        self._aliases = aliases or {}
        self._residency = residency
        self._one_sampling = len({executor.profile.sampling for executor in executors.values()}) == 1

    def find(self, name: str | None) -> CachingExecutor:
        if not name:
            return self.default
        if name in self._by_name:
            return self._by_name[name]
        for pattern, target in self._aliases.items():
            if fnmatchcase(name, pattern):
                return self.executors.get(target, self.default)
        if name in SERVED_ALIASES or (not self._aliases and name.startswith(CLOUD_MODELS)):
            return self.default
        served = ", ".join(f"'{name}'" for name in self.executors)
        raise ModelNotFound(
            f"The model '{name[:SHOWN_CHARS]}' is not served here. Served: {served} (also as 'default', or leave it "
            "out).",
            param="model",
        )

    def find_for(self, body: bytes) -> CachingExecutor:
        # The default for a body that cannot be read or names no model of ours: decoding and `find` report the error.
        if self._one_sampling:
            return self.default
        try:
            return self.find(msgspec.json.decode(body, type=ServedName).model)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ModelNotFound):
            return self.default

    def busy(self) -> bool:
        statuses = [executor.status() for executor in self.executors.values()]
        return any(status.running or status.waiting for status in statuses)

    @property
    def managed(self) -> bool:
        return self._residency is not None

    def weight_bytes(self, name: str) -> int | None:
        engine = self._engines.get(name)
        return None if engine is None else engine.spec.needs.weight_bytes

    async def start(self) -> None:
        if self._residency is None:
            await self.default.start()
        else:
            await self._residency.start()
            await self.default.open()

    async def load(self, name: str) -> None:
        """Returns when the model is loaded. Raises `ModelNotFound` and `NotReady`."""
        engine, residency = self._managed(name)
        await residency.load(engine)

    async def unload(self, name: str) -> None:
        """Raises `ModelNotFound`, and `NotReady` while the model answers."""
        engine, residency = self._managed(name)
        await residency.unload(engine)

    async def aclose(self) -> None:
        if self._residency is not None:
            await self._residency.aclose()
        await self.default.aclose()

    def _managed(self, name: str) -> tuple[EngineProcess, Residency]:
        found = self.find(name)
        own_name = next(own for own, executor in self.executors.items() if executor is found)
        if self._residency is None:
            raise BadRequest(f"'{own_name}' is always loaded: it has no engine process.", param="model")
        return self._engines[own_name], self._residency


def _by_name(executors: Mapping[str, CachingExecutor]) -> dict[str, CachingExecutor]:
    # A configured name goes before a model's id, and earlier models before later ones.
    by_name = dict(executors)
    for executor in executors.values():
        profile = executor.profile
        for name in (profile.id, profile.id.rpartition("/")[2], *profile.aliases):
            by_name.setdefault(name, executor)
    return by_name
