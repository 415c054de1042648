"""One world: servers that share a store, clients that ask, and what must hold whatever happens to them."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from cache_backends import CacheBackend
from cache_backends.tiered import TieredBackend
from service.errors import ServiceError
from service.executor.base import collect
from service.generation import Completion, GenerationRequest, Message, Text
from service.normalize import normalize
from service.response_cache.base import NO_DIRECTIVES, CacheDirectives, StoreTimes
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.key import RequestKeys
from service.response_cache.replicas import LAST_PAUSE_SECONDS
from service.settings import Settings
from tests.simulation.engine import PROFILE, SimulatedExecutor
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import Connection, SharedStore, memory

# Asked without directives only: of these, a calm world generates one at a time.
SHARED = "abc"
# Asked with directives too.
FREE = "xy"
TOKENS = 4
# Of an answer whose only reader leaves before its end.
MANY_TOKENS = 900
LEASE_SECONDS = 0.3
# In a calm world no lease is lost, and one that is not given back shows.
CALM_LEASE_SECONDS = 6.0
WAIT_SECONDS = 5.0
# Nobody waits longer, in simulated seconds: a wait for another server, a generation of its own, and a store that hangs
# at every call in between.
LONGEST_WAIT = 4 * WAIT_SECONDS
# Nothing of a calm world takes longer to generate: a token takes 0.03 s at most.
LONGEST_CALM_GENERATION = 0.4
# A request makes fewer in a row.
MOST_CALLS = 12
# After this, an abandoned generation has been aborted.
ABORT_SECONDS = 0.3
# After this, every lease has ended and every store that hung has been given up.
REST_SECONDS = 130.0


class Plan(msgspec.Struct, frozen=True):
    """What a seed decides about a world. In a `calm` one nothing fails, is slow or dies."""

    calm: bool
    servers: int
    clients: int
    places: int
    queue: int
    engine_faults: float
    stalls: bool
    store_faults: float
    delays: list[float]
    tiers: bool
    linger_seconds: float


def make_plan(random: Random) -> Plan:
    calm = random.random() < 0.3
    clients = random.choice([4, 8, 12])
    return Plan(
        calm=calm,
        servers=random.choice([1, 2, 3]),
        clients=clients,
        places=clients if calm else random.choice([1, 2, 4]),
        queue=clients if calm else random.choice([1, clients]),
        engine_faults=0 if calm else random.choice([0, 0.02, 0.2]),
        stalls=not calm and random.random() < 0.2,
        store_faults=0 if calm else random.choice([0, 0.05, 0.5]),
        delays=[0, 0.001, 0.005] if calm else random.choice([[0], [0, 0.01, 0.1], [0, 0.3, 0.7], [0, 0.01, 20]]),
        tiers=random.random() < 0.5,
        linger_seconds=random.choice([0, 0.05]),
    )


class World:
    """`run` raises AssertionError for whatever must not be."""

    def __init__(self, seed: int, store: SharedStore | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.plan = make_plan(self.random)
        self.store = store or SharedStore()
        self.died = False
        self.ended = 0
        self.executors: list[SimulatedExecutor] = []
        self.connections: list[Connection] = []
        self.servers: list[CachingExecutor] = []
        self.asking: dict[asyncio.Task[None], int] = {}
        self.closed: set[int] = set()
        self.doubles: list[str] = []

    def __repr__(self) -> str:
        return f"<World {self.plan}>"

    def run(self) -> None:
        loop = SimulatedLoop(Random(self.seed))
        loop.run(self._live())
        assert not loop.unhandled, loop.unhandled

    async def _live(self) -> None:
        plan, random = self.plan, self.random
        for _ in range(plan.servers):
            await self._start_server()
        for number in range(plan.clients):
            server = random.randrange(plan.servers)
            self.asking[asyncio.get_running_loop().create_task(self._ask(number, server))] = server
        disturbing = [asyncio.get_running_loop().create_task(act) for act in self._disturbances()]
        await asyncio.wait(set(self.asking))
        for task in self.asking:
            assert task.cancelled() or task.exception() is None, task.exception()
        assert self.ended == plan.clients
        await asyncio.wait(set(disturbing)) if disturbing else None
        await asyncio.sleep(REST_SECONDS)
        self._check_rest()
        await self._check_recovery()
        for index, server in enumerate(self.servers):
            if index not in self.closed:
                await server.aclose()
        if not self.died:
            await asyncio.sleep(REST_SECONDS)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left

    async def _start_server(self) -> None:
        plan, random = self.plan, self.random
        executor = SimulatedExecutor(
            random,
            places=plan.places,
            queue=plan.queue,
            faults=plan.engine_faults,
            stalls=plan.stalls and not self.servers,
            begun=self._check_generation,
        )
        connection = Connection(self.store, random, delays=plan.delays, faults=plan.store_faults)
        backend: CacheBackend = TieredBackend([memory(random), connection]) if plan.tiers else connection
        settings = Settings(
            home=Path("/nowhere"),
            max_concurrency=plan.places,
            request_timeout_seconds=WAIT_SECONDS,
            finish_abandoned_seconds=plan.linger_seconds,
        )
        times = StoreTimes(lease=CALM_LEASE_SECONDS if plan.calm else LEASE_SECONDS)
        server = CachingExecutor(executor, backend, settings, times=times)
        self.executors.append(executor)
        self.connections.append(connection)
        self.servers.append(server)
        await server.start()

    # What happens

    async def _ask(self, number: int, server: int) -> None:
        random = self.random
        try:
            await asyncio.sleep(random.choice([0, 0.001, 0.05, 0.5]))
            if random.random() < 0.1:
                await self._leave_early(server, f"{number} alone ")
            else:
                await self._read(server)
        finally:
            self.ended += 1

    async def _read(self, server: int) -> None:
        random = self.random
        question, directives = random.choice(SHARED), NO_DIRECTIVES
        if random.random() < 0.3:
            question, directives = random.choice(FREE), _random_directives(random)
        patience = random.choice([None, None, None, 0.0, 0.01, 0.1])
        begin = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(patience):
                completion = await self._answer(server, question, directives)
            _check_answer(question, completion)
        except (ServiceError, TimeoutError):
            pass
        waited = asyncio.get_running_loop().time() - begin
        limit = self._longest_calm_wait(question) if self.plan.calm else LONGEST_WAIT
        assert waited <= limit or self.executors[server].stalled, f"{question!r} took {waited:.2f} s, not {limit:.2f}"

    async def _leave_early(self, server: int, question: str) -> None:
        request = _request(question, MANY_TOKENS)
        with suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(self.random.choice([0.01, 0.1, 0.5])):
                answer = await self.servers[server].submit(request)
                await answer.completion()
        await asyncio.sleep(ABORT_SECONDS)
        executor = self.executors[server]
        assert not executor.generating[question] or executor.stalled, f"{question!r} goes on without a reader"

    async def _answer(self, server: int, question: str, directives: CacheDirectives) -> Completion:
        answer = await self.servers[server].submit(_request(question), directives)
        try:
            if self.random.random() < 0.5:
                return await answer.completion()
            return await collect(answer.events())
        finally:
            await answer.aclose()

    def _disturbances(self) -> list[Coroutine[Any, Any, None]]:
        if self.plan.calm:
            return []
        acts = [self._cut_off(0)] if self.random.random() < 0.3 else []
        if self.random.random() < 0.3:
            acts.append(self._close(self.random.randrange(self.plan.servers)))
        elif self.plan.servers > 1 and self.random.random() < 0.3:
            acts.append(self._kill(1))
        return acts

    async def _cut_off(self, server: int) -> None:
        await asyncio.sleep(self.random.choice([0.01, 0.1]))
        self.connections[server].cut = True
        await asyncio.sleep(self.random.choice([0.1, 1.0]))
        self.connections[server].cut = False

    async def _close(self, server: int) -> None:
        await asyncio.sleep(self.random.choice([0.01, 0.1, 1.0]))
        self.closed.add(server)
        await self.servers[server].aclose()

    async def _kill(self, server: int) -> None:
        """The others see nothing of it but its silence. Its own clients lose their connections."""
        await asyncio.sleep(self.random.choice([0.01, 0.1]))
        self.died = True
        self.closed.add(server)
        self.connections[server].dead = True
        self.executors[server].die()
        for task, asked in self.asking.items():
            if asked == server:
                task.cancel()

    # What must hold

    def _check_generation(self, question: str) -> None:
        """One server needs no lease to generate once."""
        if question not in SHARED or sum(executor.generating[question] for executor in self.executors) <= 1:
            return
        key = RequestKeys().key(PROFILE.fingerprint, normalize(_request(question)))
        if self.plan.calm or self.plan.servers == 1 or not self.store.lets_several(key):
            self.doubles.append(question)

    def _longest_calm_wait(self, question: str) -> float:
        """A client may wait for a whole generation, which is then aborted because its own clients left, and for its
        own."""
        generation = max(executor.longest.get(question, 0) for executor in self.executors)
        assert generation <= LONGEST_CALM_GENERATION, f"{question!r} was generated in {generation:.2f} s"
        return 2 * generation + LAST_PAUSE_SECONDS + MOST_CALLS * 2 * max(self.plan.delays)

    def _check_rest(self) -> None:
        assert not self.doubles, f"{self.doubles} were generated twice at a time"
        for executor in self.executors:
            assert not executor.unexpected, executor.unexpected
        for index, executor in enumerate(self.executors):
            if index in self.closed:
                continue
            status = executor.status()
            assert (status.running, status.waiting) == (0, 0), status
            assert not +executor.generating, executor.generating
            flights = self.servers[index]._flights
            assert not flights._tasks, flights._tasks
            assert not flights._joinable, flights._joinable
        assert not [key for key in self.store.held if self.store.holder(key) is not None]

    async def _check_recovery(self) -> None:
        """Nothing that went wrong sticks: every server that lives answers every question."""
        for index, server in enumerate(self.servers):
            self.executors[index].heal()
            self.connections[index].heal()
            for question in SHARED if index not in self.closed else "":
                _check_answer(question, await (await server.submit(_request(question))).completion())


def _request(question: str, tokens: int = TOKENS) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content=question),), max_tokens=tokens)


def _check_answer(question: str, completion: Completion) -> None:
    text = completion.choices[0].parts[0]
    assert isinstance(text, Text)
    assert text.text == "".join(f"{question}{n} " for n in range(1, TOKENS + 1))


def _random_directives(random: Random) -> CacheDirectives:
    return random.choice(
        [
            CacheDirectives(no_cache=True),
            CacheDirectives(no_store=True),
            CacheDirectives(only_if_cached=True),
            CacheDirectives(no_cache=True, no_store=True),
        ]
    )
