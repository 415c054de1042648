import asyncio

from service.errors import NotReady
from service.executor.base import RETRY_AFTER_SECONDS


class Outage:
    """Why a model is not served; false if there is no reason. One that may pass is forgotten after
    `RETRY_AFTER_SECONDS`, because each try costs a process."""

    def __init__(self) -> None:
        self.reason = ""
        self._passing: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self.reason)

    def begin(self, reason: str, *, for_good: bool) -> None:
        self.forget()
        self.reason = reason
        if not for_good:
            self._passing = asyncio.get_running_loop().call_later(RETRY_AFTER_SECONDS, self.forget)

    def forget(self) -> None:
        if self._passing is not None:
            self._passing.cancel()
            self._passing = None
        self.reason = ""

    def error(self) -> NotReady:
        return NotReady(self.reason, retry_after=None if self._passing is None else RETRY_AFTER_SECONDS)
