"""`ANYCLAUDE_SEED=N` chooses the faults of the long run."""

import os
from pathlib import Path

import pytest

from tests.cache_backends.redis_server import RedisServer
from tests.history.faults import LONGEST_FAULT_SECONDS, Plan, World
from tests.history.promises import double_holders, expected_answer, late_answers, wrong_answers
from tests.history.proxy import Proxy
from tests.history.records import Asked, LeaseCall, read_history
from tests.history.worker import LEASE_SECONDS, SLOWEST_GENERATION_SECONDS

WORKERS = 4
# A holder may die or be stopped just before it would have answered, and its successor as well. The rest is for
# processes that wait for a core of a busy machine.
MOST_SECONDS = 2 * (LEASE_SECONDS + LONGEST_FAULT_SECONDS) + SLOWEST_GENERATION_SECONDS + 30.0


EVICTING = ("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-random")
FILL = "for i = 1, 3000 do redis.call('SET', 'other' .. i, string.rep('x', 1000)) end"


async def record(folder: Path, plan: Plan, *options: str) -> tuple[World, list[LeaseCall], list[Asked]]:
    redis = RedisServer(folder)
    redis.start(*options)
    if options == EVICTING:
        redis.command("EVAL", FILL, "0")
    proxy = Proxy(redis.port)
    try:
        await proxy.start()
        world = World(redis, proxy, folder, plan)
        await world.run(WORKERS)
    finally:
        await proxy.aclose()
        evicted = b"evicted_keys:0\r" not in redis.command("INFO", "stats")
        redis.stop()
    assert evicted == (options == EVICTING)
    records = [one for path in world.histories for one in read_history(path)]
    calls = [one for one in records if isinstance(one, LeaseCall)]
    return world, calls, [one for one in records if isinstance(one, Asked)]


@pytest.mark.parametrize(
    ("seed", "seconds"),
    [
        pytest.param(11, 6.0, id="short"),
        pytest.param(int(os.environ.get("ANYCLAUDE_SEED", "1")), 90.0, id="long", marks=pytest.mark.endurance),
    ],
)
async def test_servers_keep_their_promises_under_faults(tmp_path: Path, seed: int, seconds: float) -> None:
    world, calls, asked = await record(tmp_path, Plan(seed=seed, seconds=seconds))
    assert min(world.counts.values()) > 0, world.counts
    assert {one.outcome for one in asked} >= {"hit", "miss", "collapsed"}
    assert not double_holders(calls)
    assert not wrong_answers(asked)
    assert not late_answers(asked, world.stops, MOST_SECONDS)
    assert not [one for one in asked if one.text is None]


async def test_a_keep_that_steals_leases_is_found(tmp_path: Path) -> None:
    _, calls, _ = await record(tmp_path, Plan(seed=13, seconds=3.0, faults=["stop holder"], stealing=True))
    assert double_holders(calls)


async def test_a_server_that_evicts_costs_generations_and_no_answer(tmp_path: Path) -> None:
    """Leases may be evicted too, so two servers may generate the same."""
    world, _, asked = await record(tmp_path, Plan(seed=12, seconds=2.0), *EVICTING)
    assert not wrong_answers(asked)
    assert not late_answers(asked, world.stops, MOST_SECONDS)
    assert not [one for one in asked if one.text is None]


def lease(what: str, holder: str, called: float, returned: float, *, held: bool = True, ttl: float = 1.0) -> LeaseCall:
    return LeaseCall(what=what, key="k", holder=holder, called=called, returned=returned, ttl=ttl, held=held)


def test_two_holders_at_once_are_found() -> None:
    first, second = lease("acquire", "a", 0.0, 0.1), lease("acquire", "b", 0.8, 0.9)
    assert double_holders([first, second])
    assert double_holders([first, lease("keep", "a", 0.5, 0.6), lease("acquire", "b", 1.2, 1.3)])


def test_a_lease_that_may_have_ended_is_no_offence() -> None:
    first = lease("acquire", "a", 0.0, 0.1)
    assert not double_holders([first, lease("acquire", "b", 0.9, 1.05)])
    assert not double_holders([first, lease("release", "a", 0.5, 0.6, held=False), lease("acquire", "b", 0.6, 0.7)])
    assert not double_holders([first, lease("acquire", "b", 0.3, 0.4, held=False)])
    assert not double_holders([first, lease("keep", "a", 0.3, 0.4)])


def asked(**changes: object) -> Asked:
    given = {"called": 0.0, "returned": 9.0, "text": expected_answer("q"), **changes}
    return Asked(worker=1, question="q", outcome="hit", **given)


def test_wrong_and_late_answers_are_found() -> None:
    assert wrong_answers([asked(), asked(text="other"), asked(text=None)]) == [asked(text="other")]
    assert late_answers([asked(), asked(returned=1.0)], [], 5.0) == [asked()]
    assert not late_answers([asked()], [(1, 2.0, 3.0)], 5.0)
    assert late_answers([asked()], [(2, 2.0, 3.0)], 5.0)
