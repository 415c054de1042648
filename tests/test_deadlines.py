"""One timer serves many waits: those that take too long end, and no others."""

import asyncio

import pytest

from service.deadlines import Deadline, DeadlineExpired, TimedQueue

FOR_EVER = 3600.0


async def test_what_ends_in_time_is_left_alone() -> None:
    deadline = Deadline(FOR_EVER)

    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await deadline.run(work()) == "done"


async def test_work_that_does_not_wait_is_not_limited() -> None:
    async def work() -> str:
        return "done"

    assert await Deadline(-1).run(work()) == "done"


async def test_each_wait_ends_when_its_own_time_is_over() -> None:
    deadline = Deadline(0.02)
    loop = asyncio.get_running_loop()

    async def wait(before: float) -> float:
        await asyncio.sleep(before)
        began = loop.time()
        with pytest.raises(DeadlineExpired):
            await deadline.run(asyncio.sleep(FOR_EVER))
        return loop.time() - began

    for seconds in await asyncio.gather(*(wait(i * 0.005) for i in range(8))):
        assert seconds >= 0.02


async def test_a_task_goes_on_after_it_was_told() -> None:
    deadline = Deadline(0.01)
    for _ in range(2):
        with pytest.raises(DeadlineExpired):
            await deadline.run(asyncio.sleep(FOR_EVER))
    await deadline.run(asyncio.sleep(0))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_error_of_its_own_passes() -> None:
    async def fail(error: Exception, waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise error

    for waits in (False, True):
        for error in (LookupError(), TimeoutError()):
            with pytest.raises(type(error)) as caught:
                await Deadline(FOR_EVER).run(fail(error, waits))
            assert caught.value is error


async def test_who_is_cancelled_by_another_stays_cancelled() -> None:
    """Also when both happen at the same time."""
    deadline = Deadline(0.01)
    expired = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(FOR_EVER)
        except asyncio.CancelledError:
            expired.set()
            await asyncio.sleep(FOR_EVER)

    task = asyncio.create_task(deadline.run(wait()))
    await expired.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_limit_within_another() -> None:
    outer, inner = Deadline(0.01), Deadline(FOR_EVER)
    with pytest.raises(DeadlineExpired):
        await outer.run(inner.run(asyncio.sleep(FOR_EVER)))


async def test_items_expire_in_their_order_and_an_item_added_again_is_the_last() -> None:
    expired: asyncio.Queue[str] = asyncio.Queue()
    queue: TimedQueue[str] = TimedQueue(0.01, expired.put_nowait)
    for item in ("first", "second", "gone", "first"):
        queue.add(item)
    queue.discard("gone")
    assert len(queue) == 2
    assert [await expired.get(), await expired.get()] == ["second", "first"]
    assert (len(queue), expired.empty()) == (0, True)


async def test_the_oldest_and_all_expire_when_they_are_told_to() -> None:
    expired: list[str] = []
    queue: TimedQueue[str] = TimedQueue(FOR_EVER, expired.append)
    assert not queue.expire_oldest()
    for item in ("a", "b", "c"):
        queue.add(item)
    assert queue.expire_oldest()
    assert (expired, "a" in queue, "b" in queue) == (["a"], False, True)
    queue.expire_all()
    assert expired == ["a", "b", "c"]
