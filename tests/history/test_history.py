"""`ANYCLAUDE_SEED=N` chooses the faults of the long run."""

import os
from pathlib import Path

import msgspec
import pytest

from service.response_cache.replicas import LAST_PAUSE_SECONDS
from tests.cache_backends.redis_server import RedisServer
from tests.history.faults import Plan, World
from tests.history.promises import double_holders, expected_answer, late_answers, wrong_answers
from tests.history.proxy import Proxy
from tests.history.records import Asked, LeaseCall, Silence, read_history
from tests.history.worker import LEASE_SECONDS, SLOWEST_GENERATION_SECONDS

WORKERS = 4
EVICTING = ("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-random")
FILL = "for i = 1, 3000 do redis.call('SET', 'other' .. i, string.rep('x', 1000)) end"


class History(msgspec.Struct, kw_only=True):
    world: World
    calls: list[LeaseCall]
    asked: list[Asked]
    silences: list[Silence]

    def late(self) -> list[Asked]:
        """A holder may be stopped or die just before it would have answered, and its successor as well. The others
        notice it when its lease has ended. A generation may wait for another one's place."""
        fault = LEASE_SECONDS + self.world.longest_fault + LAST_PAUSE_SECONDS
        return late_answers(self.asked, self.world.stops, self.silences, 2 * fault + 2 * SLOWEST_GENERATION_SECONDS)


async def record(folder: Path, plan: Plan, *options: str) -> History:
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
    return History(
        world=world,
        calls=[one for one in records if isinstance(one, LeaseCall)],
        asked=[one for one in records if isinstance(one, Asked)],
        silences=[one for one in records if isinstance(one, Silence)],
    )


@pytest.mark.parametrize(
    ("seed", "seconds"),
    [
        pytest.param(11, 6.0, id="short"),
        pytest.param(int(os.environ.get("ANYCLAUDE_SEED", "1")), 90.0, id="long", marks=pytest.mark.endurance),
    ],
)
async def test_servers_keep_their_promises_under_faults(tmp_path: Path, seed: int, seconds: float) -> None:
    history = await record(tmp_path, Plan(seed=seed, seconds=seconds))
    assert min(history.world.counts.values()) > 0, history.world.counts
    assert {one.outcome for one in history.asked} >= {"hit", "miss", "collapsed"}
    assert not double_holders(history.calls)
    assert not wrong_answers(history.asked)
    assert not history.late()
    assert not [one for one in history.asked if one.text is None]


async def test_a_keep_that_steals_leases_is_found(tmp_path: Path) -> None:
    history = await record(tmp_path, Plan(seed=13, seconds=3.0, faults=["stop holder"], stealing=True))
    assert double_holders(history.calls)


async def test_a_server_that_evicts_costs_generations_and_no_answer(tmp_path: Path) -> None:
    """Leases may be evicted too, so two servers may generate the same."""
    history = await record(tmp_path, Plan(seed=12, seconds=2.0), *EVICTING)
    assert not wrong_answers(history.asked)
    assert not history.late()
    assert not [one for one in history.asked if one.text is None]


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
    assert late_answers([asked(), asked(returned=1.0)], [], [], 5.0) == [asked()]
    assert not late_answers([asked()], [Silence(1, 2.0, 3.0)], [], 5.0)
    assert late_answers([asked()], [Silence(2, 2.0, 3.0)], [], 5.0)


def test_a_request_may_wait_for_workers_without_a_core() -> None:
    overlapping = [Silence(2, 1.0, 4.0), Silence(3, 3.0, 5.0)]
    assert not late_answers([asked()], [], overlapping, 5.0)
    assert late_answers([asked()], [], overlapping, 4.9), "each moment counts once"
    assert late_answers([asked()], [], [Silence(2, 10.0, 20.0)], 5.0), "it was over by then"
    assert late_answers([asked()], [Silence(2, 0.9, 4.5)], overlapping, 5.0), "a stopped worker is a fault"
