"""One record for each generation request. The log line and all statistics come from it. It holds no content."""

import asyncio
import logging
import math
import time
from collections.abc import Callable

import msgspec

from service.events import ChoiceFinished, Done, Event
from service.generation import Completion, FinishReason, Usage
from service.response_cache.base import CacheOutcome
from service.telemetry.prompt_history import Comparison

logger = logging.getLogger("anyclaude.request")

# People read no more lines, and each costs a hit 17 us of its 250.
HITS_A_SECOND = 20

REQUEST_ID_PREFIX = "req_"


class RequestRecord(msgspec.Struct, kw_only=True):
    """Filled while the request is handled. `started` is a time of `time.perf_counter`. Other times are seconds since
    `started`."""

    request_id: str
    dialect: str
    started: float
    model: str = ""
    status: int = 0
    stream: bool = False
    outcome: CacheOutcome | None = None
    # One for each of the body's prompts, with the time of its acceptance.
    counted: list[tuple[CacheOutcome, float]] = []
    request_bytes: int = 0
    retry: int = 0
    unread_media: int = 0
    comparison: Comparison | None = None
    reread: str = ""
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    first_event_seconds: float | None = None
    total_seconds: float = 0.0
    error_code: str = ""

    def explain_reread(self) -> None:
        """Sets `reread` at the end of the request."""
        if self.comparison is None or self.usage is None:
            return
        self.comparison.outline.prompt_tokens = self.usage.prompt_tokens
        self.reread = self.comparison.reason(self.usage)
        self.comparison = None

    def see(self, event: Event) -> None:
        if self.first_event_seconds is None:
            self.first_event_seconds = time.perf_counter() - self.started
        if isinstance(event, Done):
            self.usage = event.usage
        elif isinstance(event, ChoiceFinished):
            self.finish_reason = event.reason

    def see_completion(self, completion: Completion) -> None:
        self.usage = completion.usage
        self.finish_reason = completion.choices[0].finish_reason if completion.choices else None


Observer = Callable[[RequestRecord], None]


class RequestLog:
    """Logs one line a request in the loop's next turn, after the answer. Hits beyond `hits_a_second` share one line.
    With `names_models`, the text names the model."""

    def __init__(self, hits_a_second: int | None, *, names_models: bool = False) -> None:
        self._names_models = names_models
        self._most = math.inf if hits_a_second is None else hits_a_second
        self._hits = 0
        self._second = 0.0
        self._media_logged = False

    def observe(self, record: RequestRecord) -> None:
        if record.unread_media and not self._media_logged:
            self._media_logged = True
            logger.warning("Requests hold images, documents or audio: a line of text stands for each in the prompt.")
        loop = asyncio.get_running_loop()
        if record.outcome == "hit":
            if loop.time() >= self._second + 1:
                self._hits, self._second = 0, loop.time()
            self._hits += 1
            if self._hits > self._most:
                if self._hits == self._most + 1:
                    loop.call_at(self._second + 1, self._log_rest)
                return
        loop.call_soon(_log, record, record.model if self._names_models else "")

    def _log_rest(self) -> None:
        rest, self._hits = self._hits - self._most, 0
        logger.info("%d more %s within a second", rest, "hit" if rest == 1 else "hits")


def _log(record: RequestRecord, shown_model: str) -> None:
    usage = record.usage
    logger.info(
        "%s %s %d %s%s%s in %.1f ms%s",
        record.request_id,
        record.dialect,
        record.status,
        " ".join(filter(None, (record.outcome, record.error_code))),
        " stream" if record.stream else "",
        shown_model and f" by {shown_model}",
        record.total_seconds * 1e3,
        "" if usage is None else _tokens(usage, record.reread),
        extra={
            "request_id": record.request_id,
            "dialect": record.dialect,
            "model": record.model or None,
            "status": record.status,
            "stream": record.stream,
            "cache": record.outcome,
            "error": record.error_code or None,
            "request_bytes": record.request_bytes,
            "prompt_tokens": usage.prompt_tokens if usage else None,
            "completion_tokens": usage.completion_tokens if usage else None,
            "cached_tokens": usage.cached_tokens if usage else None,
            "reread": record.reread or None,
            "finish_reason": record.finish_reason,
            "first_event_ms": _milliseconds(record.first_event_seconds),
            "total_ms": _milliseconds(record.total_seconds),
        },
    )


def _tokens(usage: Usage, reread: str) -> str:
    answer = f"{usage.completion_tokens} in the answer"
    if reread:
        read = usage.prompt_tokens - usage.cached_tokens
        return f", {usage.cached_tokens:,} tokens reused, {read:,} read ({reread}), {answer}"
    reused = f" ({usage.cached_tokens} reused)" if usage.cached_tokens else ""
    tokens = "token" if usage.prompt_tokens == 1 else "tokens"
    return f", {usage.prompt_tokens} prompt {tokens}{reused}, {answer}"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
