"""One server with several models: clients ask, load and unload while engine processes hang and die."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import msgspec
import pytest

from cache_backends.memory import MemoryBackend
from service.device.memory import LoadNeeds
from service.errors import AnswerLost, NotReady, ServiceError
from service.events import TextDelta
from service.executor.process.call_messages import EngineSpec
from service.executor.process.engine_process import EngineProcess
from service.generation import GenerationRequest, Message
from service.model_registry.registry import ModelRegistry
from service.model_registry.residency import Residency
from service.models.errors import InvalidModel
from service.profile import ModelProfile
from service.queries import TextFound, Tokenize
from service.response_cache.caching_executor import CachingExecutor
from service.settings import Settings
from tests.no_home import NO_HOME
from tests.simulation.loop import SimulatedLoop, now
from tests.simulation.processes import GIB, POISON, TOKENS, Faults, Machine

STALL_SECONDS = 2.0
GRACE_SECONDS = 1.0
LOAD_SECONDS = 90.0
# What a calm world may answer to a request that needs room, to one to unload, and to one that waits for a load.
REFUSALS = ("cannot be unloaded now. Try again later.", "is answering.", "was unloaded. Try again.")
# A silent process that loads is killed after a minute, four times at most in a row, for each model before this one.
LONGEST_WAIT = 1200.0
LONGEST_CALM_WAIT = 60.0
LONGEST_CLOSE = 10.0
REST_SECONDS = 100.0  # longer than a load may take

Deed = Callable[[str, int], Coroutine[Any, Any, None]]


class Plan(msgspec.Struct, frozen=True):
    """What a seed decides about a world. In a `calm` one at most one process dies."""

    calm: bool
    models: int
    clients: int
    gib: float
    pinned: int
    idle_seconds: float | None
    deaths_at_most: int
    faults: Faults
    broken_files: float
    kills: int
    closes: bool
    poison: float


def make_plan(random: Random) -> Plan:
    calm = random.random() < 0.4
    chances = [0.0, 0.0, 0.1, 0.4]
    return Plan(
        calm=calm,
        models=random.choice([1, 2, 3]),
        clients=random.choice([3, 8, 16]),
        gib=random.choice([0.5, 1.0, 1.5, 2.5, 100.0]),
        pinned=random.choice([0, 0, 1]),
        idle_seconds=random.choice([None, 1.0, 5.0]),
        deaths_at_most=3 if calm else random.choice([0, 1, 3, 100]),
        faults=Faults() if calm else Faults(*[random.choice(chances) for _ in range(6)]),
        broken_files=0.0 if calm else random.choice([0, 0, 0.3]),
        kills=random.choice([0, 1]) if calm else random.choice([0, 1, 5]),
        closes=not calm and random.random() < 0.3,
        poison=0.0 if calm else random.choice([0, 0, 0.2]),
    )


class ModelsWorld:
    """`run` raises AssertionError for whatever must not be."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.plan = make_plan(self.random)
        self.machine = Machine(self.random, self.plan.gib, self.plan.faults)
        self.ended = 0
        self._broken_files = self.plan.broken_files

    def __repr__(self) -> str:
        return f"<ModelsWorld {self.plan}>"

    def run(self) -> None:
        loop = SimulatedLoop(Random(self.seed))
        loop.run(self._live())
        assert not loop.unhandled, loop.unhandled

    async def _live(self) -> None:
        plan = self.plan
        settings = Settings(
            home=NO_HOME,
            max_concurrency=plan.clients,
            max_queue=plan.clients,
            stall_seconds=STALL_SECONDS,
            shutdown_grace_seconds=GRACE_SECONDS,
        )
        self.engines = [self._engine(f"model{number}", settings) for number in range(plan.models)]
        pinned = set(self.engines[: plan.pinned])
        read_device = self.machine.read_device
        residency = Residency(self.engines, pinned, idle_seconds=plan.idle_seconds, read_device=read_device)
        cached = CachingExecutor(self.engines[0], MemoryBackend(clock=now), settings)
        models = {engine.profile.id: engine for engine in self.engines}
        self.registry = ModelRegistry(models, cached, aliases={"other*": "model0"}, residency=residency)
        await self.registry.start()
        acts = [*(self._act(number) for number in range(plan.clients)), *self._disturbances()]
        tasks = [asyncio.get_running_loop().create_task(act) for act in acts]
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.exception() is None, repr(task.exception())
        assert self.ended == plan.clients
        if not plan.closes:
            await self._check_recovery()
        await self._close()
        await asyncio.sleep(REST_SECONDS)
        assert not self.machine.live, self.machine.live
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    def _engine(self, name: str, settings: Settings) -> EngineProcess:
        known = self.random.random() < 0.5
        spec = EngineSpec(
            factory="",
            profile=ModelProfile(id=name, fingerprint=name if known else "", context_length=1000),
            settings=settings,
            needs=LoadNeeds(weight_bytes=GIB),
        )
        return EngineProcess(
            spec,
            deaths_at_most=self.plan.deaths_at_most,
            identify=self._identify,
            load_within=lambda _: LOAD_SECONDS,
            spawn=self.machine.spawner(name),
        )

    async def _identify(self, spec: EngineSpec) -> EngineSpec:
        await asyncio.sleep(self.random.choice([0, 0.02, 0.3]))
        if self.random.random() < self._broken_files:
            raise InvalidModel("a file is damaged")
        return msgspec.structs.replace(spec, profile=msgspec.structs.replace(spec.profile, fingerprint=spec.profile.id))

    # What happens

    async def _act(self, number: int) -> None:
        random = self.random
        for _ in range(random.choice([1, 3])):
            await asyncio.sleep(random.choice([0, 0.001, 0.05, 0.5, 3.0]))
            name = f"model{random.randrange(self.plan.models)}"
            begin = now()
            deed = random.choice([self._complete, self._leave, *self._deeds()])
            try:
                async with asyncio.timeout(LONGEST_CALM_WAIT if self.plan.calm else LONGEST_WAIT):
                    await deed(name, number)
            except NotReady as error:
                if self.plan.calm and not str(error).endswith(REFUSALS):
                    raise
            except ServiceError:
                if self.plan.calm:
                    raise
            except TimeoutError:
                pytest.fail(f"{deed.__name__} of {name} does not end, begun at {begin:.3f} s")
        self.ended += 1

    def _deeds(self) -> list[Deed]:
        return [self._complete, self._stream, self._count, self._ask, self._load, self._unload]

    def _question(self, number: int) -> GenerationRequest:
        text = self.random.choice(["shared", f"own {number}"])
        if self.random.random() < self.plan.poison:
            text = POISON
        return GenerationRequest(messages=(Message(role="user", content=text),), max_tokens=5)

    async def _complete(self, name: str, number: int) -> None:
        request = self._question(number)
        patience = self.random.choice([None, 0.0, 0.1])
        answer = await self.registry.find(name).submit(request, patience=patience)
        assert (await answer.completion()).choices[0].text == _right(name, request)

    async def _stream(self, name: str, number: int) -> None:
        request = self._question(number)
        pause = self.random.choice([0, 0, 0.1, 5.0])
        answer = await self.registry.find(name).submit(request, patience=self.random.choice([None, 0.0]))
        text = ""
        try:
            async for event in answer.events():
                if isinstance(event, TextDelta):
                    text += event.text
                assert _right(name, request).startswith(text)
                await asyncio.sleep(pause)
        except AnswerLost:
            assert text, "nothing was sent, and it was not generated again"
            return
        finally:
            await answer.aclose()
        assert text == _right(name, request)

    async def _leave(self, name: str, number: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.random.choice([0, 0.001, 0.02, 0.1, 1.0])):
                await self.random.choice(self._deeds())(name, number)

    async def _count(self, name: str, number: int) -> None:
        request = self._question(number)
        assert await self.registry.find(name).count_tokens(request) == len(request.messages[0].content)

    async def _ask(self, name: str, _: int) -> None:
        assert await self.registry.find(name).ask(Tokenize("text")) == TextFound(name)

    async def _load(self, name: str, _: int) -> None:
        await self.registry.load(name)

    async def _unload(self, name: str, _: int) -> None:
        await self.registry.unload(name)

    def _disturbances(self) -> list[Coroutine[Any, Any, None]]:
        acts = [self._kill() for _ in range(self.plan.kills)]
        return [*acts, self._close_early()] if self.plan.closes else acts

    async def _kill(self) -> None:
        await asyncio.sleep(self.random.choice([0, 0.01, 0.05, 0.3, 1.0]) * self.random.random())
        if self.machine.live:
            self.random.choice(list(self.machine.live.values())).end("it was killed by SIGKILL")

    async def _close_early(self) -> None:
        await asyncio.sleep(self.random.choice([0, 0.01, 0.1, 0.5, 1.0, 4.0]))
        await self._close()

    async def _close(self) -> None:
        begin = now()
        await self.registry.aclose()
        assert now() - begin <= LONGEST_CLOSE, f"closing took {now() - begin:.2f} s"

    # What must hold

    async def _check_recovery(self) -> None:
        """Nothing that went wrong sticks: every model can be loaded, one after the other, and answers."""
        self.machine.faults = Faults()
        self._broken_files = 0.0
        await asyncio.sleep(REST_SECONDS)
        for engine in self.engines:
            status = engine.status()
            assert (engine.busy, status.running, status.waiting) == (False, 0, 0), status
            assert (engine.profile.id in self.machine.live) == (engine.resident and status.state != "unhealthy")
        for engine in self.engines:
            if self.plan.pinned and self.plan.gib < 100 and engine is not self.engines[0]:
                continue  # nothing makes room for it
            await self.registry.load(engine.profile.id)
            await self._complete_surely(engine.profile.id)

    async def _complete_surely(self, name: str) -> None:
        request = GenerationRequest(messages=(Message(role="user", content="afterwards"),), max_tokens=5)
        answer = await self.registry.find(name).submit(request)
        assert (await answer.completion()).choices[0].text == _right(name, request)


def _right(name: str, request: GenerationRequest) -> str:
    question = request.messages[0].content
    return "".join(f"{name} {question} {number} " for number in range(1, TOKENS + 1))
