import math
from collections.abc import Callable

from service.executor.scheduling.messages import Delivery

# One frame of a display with 60 Hz: nobody sees that tokens come in groups this short. A delivery wakes the event loops
# of this process and of the server, and on a CPU the model waits for the core that they take.
TOGETHER_SECONDS = 0.016


class Outbox:
    """A delivery that is not urgent waits for an urgent one, or until `TOGETHER_SECONDS` after the last sending."""

    def __init__(self, send: Callable[[list[Delivery]], None], clock: Callable[[], float]) -> None:
        self._send = send
        self._clock = clock
        self._waiting: list[Delivery] = []
        self._urgent = False
        self._sent_at = -math.inf

    def put(self, delivery: Delivery, *, urgent: bool = True) -> None:
        self._waiting.append(delivery)
        self._urgent |= urgent

    def send_due(self) -> None:
        if self._waiting and (self._urgent or self._clock() - self._sent_at >= TOGETHER_SECONDS):
            self.send_all()

    def send_all(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._urgent = self._waiting, [], False
            self._sent_at = self._clock()
            self._send(waiting)
