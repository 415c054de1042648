from hypothesis import given
from hypothesis import strategies as st

from service.executor.scheduling.messages import Aborted, Delivery, Progress
from service.executor.scheduling.outbox import TOGETHER_SECONDS, Outbox

SHORT = TOGETHER_SECONDS / 4


class Sent:
    """An outbox with a clock set by hand, and the groups that it sent with the times."""

    def __init__(self) -> None:
        self.now = 0.0
        self.groups: list[tuple[float, list[Delivery]]] = []
        self.outbox = Outbox(lambda group: self.groups.append((self.now, group)), lambda: self.now)

    def put(self, *deliveries: Delivery, urgent: bool) -> None:
        for delivery in deliveries:
            self.outbox.put(delivery, urgent=urgent)
        self.outbox.send_due()

    @property
    def numbers(self) -> list[list[int]]:
        return [[delivery.sequence for delivery in group] for _, group in self.groups]  # type: ignore[union-attr]


def test_tokens_of_fast_steps_leave_in_groups() -> None:
    sent = Sent()
    for number in range(12):
        sent.now = number * SHORT
        sent.put(Progress(number, []), urgent=number == 0)
    assert sent.numbers == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_each_token_of_slow_steps_leaves_at_once() -> None:
    sent = Sent()
    for number in range(4):
        sent.now = number * TOGETHER_SECONDS
        sent.put(Progress(number, []), urgent=False)
    assert sent.numbers == [[0], [1], [2], [3]]


def test_what_is_urgent_takes_along_what_waits() -> None:
    sent = Sent()
    sent.put(Progress(0, []), urgent=True)
    sent.put(Progress(1, []), urgent=False)
    sent.put(Aborted(2), urgent=True)
    assert sent.numbers == [[0], [1, 2]]
    sent.outbox.put(Aborted(3))
    sent.put(Progress(4, []), urgent=False)
    assert sent.numbers == [[0], [1, 2], [3, 4]]


def test_what_waits_can_be_sent_before_its_time() -> None:
    sent = Sent()
    sent.put(Progress(0, []), Progress(1, []), urgent=True)
    sent.put(Progress(2, []), urgent=False)
    sent.outbox.send_all()
    sent.outbox.send_all()
    assert sent.numbers == [[0, 1], [2]]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2 * TOGETHER_SECONDS))))
def test_nothing_is_lost_reordered_or_held_for_longer_than_its_time(steps: list[tuple[bool, float]]) -> None:
    sent = Sent()
    put_at: list[float] = []
    for number, (urgent, seconds) in enumerate(steps):
        sent.now += seconds
        put_at.append(sent.now)
        sent.put(Progress(number, []), urgent=urgent)
        waiting = range(sum(map(len, sent.numbers)), number + 1)
        assert all(sent.now - put_at[each] < TOGETHER_SECONDS for each in waiting)
    sent.outbox.send_all()
    assert [number for group in sent.numbers for number in group] == list(range(len(steps)))
