"""Single flight between servers, each a `CachingExecutor` of its own, over one real Redis server."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cache_backends import CacheUnavailable
from cache_backends.base import Leases, leases_of
from cache_backends.disk import DiskBackend
from cache_backends.memory import MemoryBackend
from cache_backends.redis import RedisBackend
from cache_backends.tiered import TieredBackend
from service.errors import AnswerLost, ContextLengthExceeded, EngineFailed, GenerationTimeout, ServiceError
from service.events import Event
from service.executor.base import ExecutorStatus
from service.executor.scripted import PROFILE, ScriptedExecutor
from service.generation import GenerationRequest
from service.profile import ModelProfile
from service.response_cache.base import CacheDirectives, StoreTimes
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.key import RequestKeys
from service.response_cache.replicas import EngineLoad, Lease
from tests.cache_backends.redis_server import RedisServer
from tests.patience import PATIENCE_SECONDS
from tests.response_cache.answers import ask, settings

LEASE_SECONDS = 2.0
LONG_LEASE_SECONDS = 10 * PATIENCE_SECONDS
TIMEOUT_SECONDS = 2.0


def times(lease_seconds: float) -> StoreTimes:
    """A busy machine loses no look-up and no lease."""
    return StoreTimes(lookup=PATIENCE_SECONDS, lease=lease_seconds, lease_call=PATIENCE_SECONDS)


class Replica:
    """A server: what it was asked to generate is in `inner`, and waits until `gate` is open. It fails once."""

    def __init__(
        self, number: int, backend: RedisBackend | TieredBackend, profile: ModelProfile, lease_seconds: float
    ) -> None:
        self.gate = asyncio.Event()
        self.failure: ServiceError | None = None
        self.text = f"by {number}"
        self.backend = backend
        self.inner = ScriptedExecutor(self._script, profile=profile, concurrency=1)
        configured = settings(max_concurrency=1, request_timeout_seconds=PATIENCE_SECONDS)
        self.caching = CachingExecutor(self.inner, backend, configured, times=times(lease_seconds))

    @property
    def leases(self) -> Leases:
        assert self.backend.leases is not None
        return self.backend.leases

    @property
    def generations(self) -> int:
        return len(self.inner.submitted)

    def ask(self, request: GenerationRequest | None = None) -> "asyncio.Task[tuple[str, str]]":
        """Outcome and text of what a client is answered."""
        return asyncio.create_task(self._ask(request or ask()))

    async def _ask(self, request: GenerationRequest) -> tuple[str, str]:
        answer = await self.caching.submit(request)
        try:
            return answer.outcome, (await answer.completion()).choices[0].text
        finally:
            await answer.aclose()

    async def _script(self, request: GenerationRequest) -> AsyncIterator[str | Event]:
        await self.gate.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        if self.text:
            yield self.text


Start = Callable[..., Replica]


@asynccontextmanager
async def starting(server: RedisServer) -> AsyncIterator[Start]:
    started: list[Replica] = []
    first = RedisBackend(server.url, timeout=PATIENCE_SECONDS)
    await first.stats()  # imports the client: a busy machine needs longer for that than a look-up may take
    await first.aclose()

    def start(
        *,
        tiered: bool = False,
        profile: ModelProfile = PROFILE,
        lease_seconds: float = LONG_LEASE_SECONDS,
        timeout: float = PATIENCE_SECONDS,
    ) -> Replica:
        redis = RedisBackend(server.url, timeout=timeout)
        backend = TieredBackend([MemoryBackend(), redis]) if tiered else redis
        started.append(Replica(len(started) + 1, backend, profile, lease_seconds))
        return started[-1]

    try:
        yield start
    finally:
        for replica in started:
            await replica.caching.aclose()


@pytest.fixture
async def start(redis_server: RedisServer) -> AsyncIterator[Start]:
    async with starting(redis_server) as start:
        yield start


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 -- nothing announces it
            await asyncio.sleep(0.005)


async def generating(replica: Replica, request: GenerationRequest | None = None) -> "asyncio.Task[tuple[str, str]]":
    """A client of a replica that has begun to generate for it."""
    before = replica.generations
    client = replica.ask(request)
    await until(lambda: replica.generations > before)
    return client


def key(request: GenerationRequest | None = None) -> str:
    return RequestKeys().key(PROFILE.fingerprint, request or ask())


@pytest.mark.waits
@pytest.mark.parametrize("tiered", [False, True])
async def test_one_generates_and_the_others_wait_for_its_entry(start: Start, tiered: bool) -> None:
    first, *others = [start(tiered=tiered, lease_seconds=LEASE_SECONDS) for _ in range(3)]
    clients = [await generating(first)]
    clients += [replica.ask() for replica in others]
    await asyncio.sleep(2 * LEASE_SECONDS)  # the lease must be kept for as long as it takes
    first.gate.set()
    answers = await asyncio.wait_for(asyncio.gather(*clients), PATIENCE_SECONDS)
    assert answers == [("miss", "by 1"), ("collapsed", "by 1"), ("collapsed", "by 1")]
    assert [replica.generations for replica in others] == [0, 0]
    await until(lambda: first.caching.counters.stored == 1)
    assert [(r.caching.counters.hits, r.caching.counters.misses) for r in (first, *others)] == [(0, 1), (1, 0), (1, 0)]
    assert [r.caching.counters.stored for r in (first, *others)] == [1, 0, 0]
    assert await others[0].ask() == ("hit", "by 1")


async def test_all_at_once_make_one_generation(start: Start) -> None:
    replicas = [start() for _ in range(4)]
    for replica in replicas:
        replica.gate.set()
    clients = [replica.ask() for replica in replicas for _ in range(5)]
    answers = await asyncio.wait_for(asyncio.gather(*clients), PATIENCE_SECONDS)
    assert sum(replica.generations for replica in replicas) == 1
    assert len({text for _, text in answers}) == 1


async def test_a_stream_that_waits_opens_as_soon_as_the_other_engine_has_accepted(start: Start) -> None:
    first, second = start(), start()
    client = await generating(first)
    answer = await asyncio.wait_for(second.caching.submit(ask()), PATIENCE_SECONDS)
    assert (answer.outcome, answer.prompt_tokens) == ("collapsed", 3)
    first.gate.set()
    assert [event async for event in answer.events()]
    assert await client == ("miss", "by 1")


@pytest.mark.waits
async def test_what_a_dead_server_began_is_taken_over_by_one_of_the_others(start: Start) -> None:
    replicas = [start() for _ in range(3)]
    for replica in replicas:
        replica.gate.set()
    note = '{"prompt_tokens":3}'  # as a process leaves it that was killed
    began = time.monotonic()
    assert await replicas[0].leases.acquire(key(), "dead", note, ttl=LEASE_SECONDS) is None
    answers = await asyncio.wait_for(asyncio.gather(*(replica.ask() for replica in replicas)), PATIENCE_SECONDS)
    assert time.monotonic() - began >= LEASE_SECONDS * 0.9
    assert sum(replica.generations for replica in replicas) == 1
    assert len({text for _, text in answers}) == 1


@pytest.mark.waits
async def test_an_engine_without_progress_is_not_waited_for(start: Start) -> None:
    first, second = start(lease_seconds=LEASE_SECONDS), start()
    second.gate.set()
    client = await generating(first)
    waiting = second.ask()
    first.inner.state = ExecutorStatus(state="degraded")
    assert (await asyncio.wait_for(waiting, PATIENCE_SECONDS))[1] == "by 2"
    first.gate.set()
    assert await client == ("miss", "by 1")


async def test_when_the_only_client_of_the_generation_leaves_another_server_takes_over(start: Start) -> None:
    first, second = start(), start()
    client = await generating(first)
    second.gate.set()
    waiting = await second.caching.submit(ask())
    client.cancel()
    assert (await asyncio.wait_for(waiting.completion(), PATIENCE_SECONDS)).choices[0].text == "by 2"
    await waiting.aclose()


@pytest.mark.parametrize("failure", [EngineFailed("broken"), None])
async def test_what_will_not_be_stored_is_generated_by_everybody_at_once(
    start: Start, failure: ServiceError | None
) -> None:
    first, *others = [start() for _ in range(3)]
    client = await generating(first)
    clients = [replica.ask() for replica in others]
    first.failure, first.text = failure, ""
    first.gate.set()
    # All of them, while none of them has ended: nobody stands in a line.
    await until(lambda: all(replica.generations == 1 for replica in others))
    for replica in others:
        replica.gate.set()
    assert [text for _, text in await asyncio.gather(*clients)] == ["by 2", "by 3"]
    assert isinstance((await asyncio.gather(client, return_exceptions=True))[0], EngineFailed if failure else tuple)


async def test_an_answer_that_the_engine_loses_is_generated_again_and_stored(start: Start) -> None:
    first, second = start(), start()
    client = await generating(first)
    first.failure = AnswerLost("It died.")
    first.gate.set()
    assert (await client)[1] == "by 1"
    await until(lambda: first.caching.counters.stored == 1)  # nobody waits for an answer without a lease
    assert (await second.ask(), first.generations, second.generations) == (("hit", "by 1"), 2, 0)


async def test_what_one_refuses_each_refuses_for_itself(start: Start) -> None:
    small = ModelProfile(id=PROFILE.id, fingerprint=PROFILE.fingerprint, context_length=2)
    first, second = start(profile=small), start(profile=small)
    for refusal in await asyncio.gather(first.ask(), second.ask(), return_exceptions=True):
        assert isinstance(refusal, ContextLengthExceeded)


async def test_a_model_beside_waits_for_other_servers_of_its_own(start: Start) -> None:
    other = ModelProfile(id="other", fingerprint="other", context_length=PROFILE.context_length)
    first, second = start(), start(profile=other)
    beside = first.caching.around(ScriptedExecutor(profile=other))
    client = await generating(second)
    waiting = await beside.submit(ask())
    second.gate.set()
    assert (await waiting.completion()).choices[0].text == "by 2"
    assert await client == ("miss", "by 2")
    await waiting.aclose()
    own = await beside.submit(ask("its own"))
    assert (await own.completion()).choices[0].text == "its own"


async def test_nobody_waits_for_a_queue_where_there_is_a_place(start: Start) -> None:
    first, second = start(lease_seconds=LEASE_SECONDS), start()
    second.gate.set()
    other = await generating(first, ask("something else"))
    queued = await generating(first)
    assert await asyncio.wait_for(second.ask(), PATIENCE_SECONDS) == ("miss", "by 2")
    first.gate.set()
    assert (await other)[1] == (await queued)[1] == "by 1"


async def test_waiting_ends_when_a_generation_would_have_timed_out(redis_server: RedisServer) -> None:
    backend = RedisBackend(redis_server.url, timeout=PATIENCE_SECONDS)
    caching = CachingExecutor(ScriptedExecutor(), backend, settings(request_timeout_seconds=0.2))
    assert await backend.leases.acquire(key(), "slow", '{"prompt_tokens":3}', ttl=LONG_LEASE_SECONDS) is None
    answer = await caching.submit(ask())
    with pytest.raises(GenerationTimeout):
        await asyncio.wait_for(answer.completion(), PATIENCE_SECONDS)
    await caching.aclose()


async def test_a_note_of_another_version_is_not_waited_for(start: Start) -> None:
    replica = start()
    replica.gate.set()
    await replica.leases.acquire(key(), "newer", '{"prompt_tokens":"three"}', ttl=LONG_LEASE_SECONDS)
    assert await asyncio.wait_for(replica.ask(), PATIENCE_SECONDS) == ("miss", "by 1")


@pytest.mark.parametrize("directives", [CacheDirectives(no_cache=True), CacheDirectives(max_age=0)])
async def test_who_wants_a_new_answer_does_not_wait_for_anothers(start: Start, directives: CacheDirectives) -> None:
    first, second = start(), start()
    second.gate.set()
    client = await generating(first)
    answer = await asyncio.wait_for(second.caching.submit(ask(), directives), PATIENCE_SECONDS)
    assert (await answer.completion()).choices[0].text == "by 2"
    first.gate.set()
    await client


async def test_when_the_store_goes_away_the_waiting_generate_themselves(
    start: Start, redis_server: RedisServer
) -> None:
    first, second = start(), start()
    first_client, second_client = await generating(first), second.ask()
    await until(lambda: second.inner.running == 0 and not second_client.done())
    redis_server.stop()
    second.gate.set()
    assert (await asyncio.wait_for(second_client, PATIENCE_SECONDS))[1] == "by 2"
    first.gate.set()
    assert await first_client == ("miss", "by 1")


class Unwritable(RedisBackend):
    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        raise CacheUnavailable("no room")


async def test_who_cannot_write_waits_for_nobody(redis_server: RedisServer) -> None:
    """Nor would anybody have what it generates under a lease: it takes none."""
    backend = Unwritable(redis_server.url, timeout=PATIENCE_SECONDS)
    caching = CachingExecutor(ScriptedExecutor(), backend, settings())
    await (await caching.submit(ask("the first that is not written"))).completion()
    await until(lambda: caching.counters.store_failures == 1)
    assert await backend.leases.acquire(key(), "slow", '{"prompt_tokens":3}', ttl=LONG_LEASE_SECONDS) is None
    answer = await asyncio.wait_for(caching.submit(ask()), PATIENCE_SECONDS)
    assert answer.outcome == "miss"
    await caching.aclose()


@pytest.mark.waits
@pytest.mark.parametrize("away", ["stopped", "paused"])
async def test_an_outage_costs_the_first_request_the_stores_timeout_and_the_others_nothing(
    start: Start, redis_server: RedisServer, away: str
) -> None:
    replica = start(timeout=TIMEOUT_SECONDS)
    replica.gate.set()
    await replica.ask(ask("warm"))
    redis_server.stop() if away == "stopped" else redis_server.pause()
    times = []
    for number in range(5):
        began = time.monotonic()
        await asyncio.wait_for(replica.ask(ask(f"number {number}")), PATIENCE_SECONDS)
        times.append(time.monotonic() - began)
    assert times[0] < TIMEOUT_SECONDS + 30.0, "the rest is for a busy machine"
    assert statistics.median(times[1:]) < TIMEOUT_SECONDS / 2
    redis_server.resume()


async def test_the_lease_ends_with_the_answer_and_never_counts_as_one(start: Start, redis_server: RedisServer) -> None:
    replica = start()
    client = await generating(replica)
    await until(lambda: redis_server.command("DBSIZE") == b":1\r\n")
    assert (await replica.backend.stats()).items == 0
    assert await replica.backend.clear() == 0
    replica.gate.set()
    await client
    await until(lambda: redis_server.command("KEYS", "lease:*") == b"*0\r\n")
    assert (await replica.backend.stats()).items == 1


class OwnLeases:
    """Leases that nobody else wants."""

    def __init__(self) -> None:
        self.released = False

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        return None

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        return True

    async def release(self, key: str, holder: str) -> None:
        self.released = True


@pytest.mark.parametrize("turns", range(6))
async def test_a_lease_ends_however_soon_after_the_answer_began(turns: int) -> None:
    """`turns` of the event loop lie between the two: the task that keeps the lease is each time somewhere else."""
    leases = OwnLeases()
    lease = Lease(leases, "key", times(60.0))
    lease.start_keeping(EngineLoad(ScriptedExecutor(), places=1))
    for _ in range(20):
        await asyncio.sleep(0)
    lease.begun()
    for _ in range(turns):
        await asyncio.sleep(0)
    await asyncio.wait_for(lease.end(), PATIENCE_SECONDS)
    assert leases.released


async def test_a_holder_that_was_held_up_takes_nothing_away(start: Start) -> None:
    leases = start().leases
    assert await leases.acquire("key", "slow", "", ttl=0.01) is None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await leases.acquire("key", "next", "its note", ttl=LONG_LEASE_SECONDS) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert not await leases.keep("key", "slow", "", ttl=LONG_LEASE_SECONDS)
    await leases.release("key", "slow")
    assert await leases.acquire("key", "third", "", ttl=LONG_LEASE_SECONDS) == "its note"
    assert await leases.keep("key", "next", "another", ttl=LONG_LEASE_SECONDS)
    await leases.release("key", "next")
    assert await leases.acquire("key", "third", "", ttl=LONG_LEASE_SECONDS) is None


def test_stores_of_one_process_have_no_leases(tmp_path: Path) -> None:
    alone = [MemoryBackend(), DiskBackend(tmp_path)]
    assert [leases_of(backend) for backend in (*alone, TieredBackend(alone))] == [None] * (len(alone) + 1)
