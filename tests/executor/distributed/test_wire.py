"""The wire between ranks, over real sockets on loopback."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import NamedTuple

import pytest

from service.executor.distributed.ranks import RankLost
from service.executor.distributed.route import Route
from service.executor.distributed.wire import SECRET_BYTES, Wire, connect, listen
from tests.patience import PATIENCE_SECONDS

SECRET = bytes(range(SECRET_BYTES))


class Place(NamedTuple):
    wire: Wire
    losses: SimpleQueue[str]

    def loss(self) -> str:
        return self.losses.get(timeout=PATIENCE_SECONDS)


def chain(size: int) -> list[Route]:
    def route(rank: int) -> Route:
        above, below = (rank + 1) % size, (rank - 1) % size
        below_it = (below,) if below else ()
        upstream = "127.0.0.1" if rank else ""
        return Route(rank=rank, listen="127.0.0.1", below=below_it, upstream=upstream, above=above if rank else 0)

    return [route(rank) for rank in range(size)]


def star(size: int) -> list[Route]:
    others = [Route(rank=rank, listen="127.0.0.1", below=(), upstream="127.0.0.1") for rank in range(1, size)]
    return [Route(rank=0, listen="127.0.0.1", below=tuple(range(1, size))), *others]


@contextmanager
def connected(routes: list[Route]) -> Iterator[list[Place]]:
    listeners = [listen(route) for route in routes]
    ports = [listener.getsockname()[1] if listener else 0 for listener in listeners]
    places: dict[int, Place] = {}

    def join(route: Route) -> None:
        losses: SimpleQueue[str] = SimpleQueue()
        wire = connect(route, listeners[route.rank], ports[route.above], SECRET, losses.put)
        places[route.rank] = Place(wire, losses)

    threads = [threading.Thread(target=join, args=(route,)) for route in routes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    try:
        yield [places[route.rank] for route in routes]
    finally:
        for place in places.values():
            place.wire.fail("the test is over")
        for listener in listeners:
            if listener is not None:
                listener.close()


@pytest.mark.parametrize("routes", [chain(2), chain(4), star(3)], ids=["two", "chain", "star"])
def test_what_rank_0_tells_reaches_all_in_order(routes: list[Route]) -> None:
    messages = [b"x", bytes(3_000_000), b"last"]
    with connected(routes) as (first, *others):
        for message in messages:
            first.wire.tell(message)
        assert [[place.wire.hear() for _ in messages] for place in others] == [messages] * len(others)


@pytest.mark.parametrize("routes", [chain(4), star(3)], ids=["chain", "star"])
def test_an_orderly_end_is_no_loss(routes: list[Route]) -> None:
    with connected(routes) as (first, *others):
        first.wire.tell(b"call")
        first.wire.end()
        for place in others:
            assert place.wire.hear() == b"call"
            assert place.wire.hear() is None
        for place in others:
            place.wire.fail("ends late")
        assert all(place.losses.empty() for place in (first, *others))


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_rank_that_gives_up_is_known_to_all(failing: int) -> None:
    with connected(chain(4)) as places:
        places[failing].wire.fail(f"rank {failing} has no memory")
        assert places[0].loss() == f"rank {failing} has no memory"
        for rank in {1, 2, 3} - {failing}:
            assert places[rank].loss()
            with pytest.raises(RankLost):
                places[rank].wire.hear()
        with pytest.raises(RankLost, match=f"rank {failing} has no memory"):
            places[0].wire.tell(b"call")


def test_a_process_that_ends_is_missed_by_both_sides() -> None:
    ours, theirs = socket.socketpair()
    losses: SimpleQueue[str] = SimpleQueue()
    Wire(None, {2: ours}, losses.put)
    theirs.close()
    assert losses.get(timeout=PATIENCE_SECONDS) == "rank 2 has ended"

    ours, theirs = socket.socketpair()
    wire = Wire(ours, {}, losses.put)
    theirs.close()
    with pytest.raises(RankLost, match="rank 0, or a rank on the way to it, has ended without a reason"):
        wire.hear()
    assert "without a reason" in losses.get(timeout=PATIENCE_SECONDS)


def test_a_rank_that_is_gone_is_a_better_reason_than_what_failed_for_it() -> None:
    ours, theirs = socket.socketpair()
    losses: SimpleQueue[str] = SimpleQueue()
    wire = Wire(None, {2: ours}, losses.put)
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(wire.fail, "a collective failed")
        theirs.close()
        assert failing.result(PATIENCE_SECONDS) == "rank 2 has ended"
    assert losses.get(timeout=PATIENCE_SECONDS) == "rank 2 has ended"
    assert losses.empty()
    assert wire.fail("too late") == "rank 2 has ended"


def test_strangers_are_sent_away() -> None:
    leader, follower = star(2)
    listener = listen(leader)
    assert listener is not None
    port = listener.getsockname()[1]
    losses: SimpleQueue[str] = SimpleQueue()
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(bytes(SECRET_BYTES) + (1).to_bytes(4, "little"))
        joining = threading.Thread(target=lambda: connect(follower, None, port, SECRET, losses.put).hear())
        joining.start()
        wire = connect(leader, listener, 0, SECRET, losses.put)
        assert stranger.recv(1) == b""
    wire.end()
    joining.join(PATIENCE_SECONDS)
    assert not joining.is_alive()
    assert losses.empty()
