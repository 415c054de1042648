from collections.abc import AsyncIterator

import pytest

from cache_backends.redis import RedisBackend
from cache_backends.redis_leases import RedisLeases
from tests.cache_backends.redis_server import RedisServer
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
async def leases(shared_redis: RedisServer) -> AsyncIterator[RedisLeases]:
    shared_redis.command("FLUSHALL")
    backend = RedisBackend(shared_redis.url, prefix="one:", timeout=PATIENCE_SECONDS)
    yield backend.leases
    await backend.aclose()


def milliseconds_left(server: RedisServer) -> int:
    return int(server.command("PTTL", "lease:one:k").strip(b":\r\n"))


async def test_the_first_has_the_lease_and_others_get_its_note(leases: RedisLeases) -> None:
    assert await leases.acquire("k", "first", "a note", ttl=1000) is None
    assert await leases.acquire("k", "second", "another", ttl=1000) == "a note"
    assert await leases.acquire("other", "second", "another", ttl=1000) is None


async def test_only_the_holder_keeps_a_lease_and_changes_its_note(leases: RedisLeases) -> None:
    await leases.acquire("k", "first", "a note", ttl=1000)
    assert await leases.keep("k", "second", "stolen", ttl=1000) is False
    assert await leases.keep("k", "first", "a later note", ttl=1000) is True
    assert await leases.acquire("k", "second", "another", ttl=1000) == "a later note"


async def test_only_the_holder_releases_a_lease(leases: RedisLeases) -> None:
    await leases.acquire("k", "first", "a note", ttl=1000)
    await leases.release("k", "second")
    assert await leases.acquire("k", "second", "another", ttl=1000) == "a note"
    await leases.release("k", "first")
    assert await leases.acquire("k", "second", "another", ttl=1000) is None


async def test_a_lease_lasts_as_long_as_it_was_last_asked_for(leases: RedisLeases, shared_redis: RedisServer) -> None:
    await leases.acquire("k", "first", "a note", ttl=1000)
    assert 900_000 < milliseconds_left(shared_redis) <= 1_000_000
    await leases.keep("k", "first", "a note", ttl=2000)
    assert 1_900_000 < milliseconds_left(shared_redis) <= 2_000_000


async def test_a_lease_that_ran_out_is_taken_again_by_who_keeps_it(leases: RedisLeases) -> None:
    assert await leases.keep("k", "first", "a note", ttl=1000) is True
    assert await leases.acquire("k", "second", "another", ttl=1000) == "a note"


async def test_the_shortest_lease_is_a_millisecond(leases: RedisLeases, shared_redis: RedisServer) -> None:
    await leases.acquire("k", "first", "a note", ttl=0.0001)
    assert milliseconds_left(shared_redis) <= 1


async def test_a_note_that_is_no_text_is_readable(leases: RedisLeases, shared_redis: RedisServer) -> None:
    shared_redis.command("EVAL", "redis.call('HSET', KEYS[1], 'holder', 'x', 'note', '\\255')", "1", "lease:one:k")
    assert await leases.acquire("k", "first", "a note", ttl=1000) == "\ufffd"


async def test_leases_of_two_prefixes_are_apart_and_are_no_values(
    leases: RedisLeases, shared_redis: RedisServer
) -> None:
    await leases.acquire("k", "first", "a note", ttl=1000)
    for prefix, found in (("one:", "a note"), ("two:", None)):
        backend = RedisBackend(shared_redis.url, prefix=prefix, timeout=PATIENCE_SECONDS)
        assert await backend.leases.acquire("k", "second", "another", ttl=1000) == found
        assert (await backend.stats()).items == await backend.clear() == 0
        await backend.aclose()
