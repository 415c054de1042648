import logging
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from service.errors import AnswerLost, EngineFailed, Overloaded, ServiceError, ShuttingDown
from service.events import ChoiceFinished, Event, TextDelta
from service.executor.base import RETRY_AFTER_SECONDS
from service.executor.scheduling.messages import (
    Abort,
    Aborted,
    Command,
    Delivery,
    Failed,
    Finished,
    Inspect,
    Inspected,
    Progress,
    PromptRead,
    PromptUse,
    Sequence,
    Shutdown,
    Started,
    Submit,
)
from service.executor.scheduling.outbox import Outbox
from service.executor.scheduling.places import Places
from service.executor.scheduling.protocols import Engine, EngineLost, Token, Writer
from service.executor.scheduling.pulse import Pulse
from service.executor.scheduling.room import MARGIN_TOKENS, Room
from service.executor.scheduling.running import Running
from service.executor.scheduling.time_slices import TimeSlices
from service.executor.scheduling.trials import PROBE, Trials, make_probe
from service.executor.scheduling.turns import Turns

log = logging.getLogger(__name__)

PROBE_STEPS = 4

LOST = "The engine failed while it generated. Try again."
TOO_LONG = "The request waited too long for a free place. Try again later, or raise maxConcurrency."

# An idle engine measures its memory this often.
IDLE_SECONDS = 10.0

# It looks this often while a sequence waits for memory that other programs hold.
SHORT_SECONDS = 0.25


class Scheduler:
    """At most `places.number` sequences run, fewer if memory is short. If the engine fails, sequences that have sent
    nothing run again once."""

    def __init__(
        self,
        engine: Engine,
        inbox: SimpleQueue[Command],
        deliver: Callable[[list[Delivery]], None],
        open_writer: Callable[[Sequence], Writer],
        *,
        places: Places,
        pulse: Pulse | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pulse = pulse or Pulse()
        self._engine = engine
        self._inbox = inbox
        self._open_writer = open_writer
        self._places = places
        self._clock = clock
        self._waiting: OrderedDict[int, Sequence] = OrderedDict()
        self._running: dict[int, Running] = {}
        self._turns = Turns()
        self._next: int | None = None
        self._trials = Trials()
        self._outbox = Outbox(deliver, clock)
        self._room = Room(engine, clock)
        self.pulse.longest_tokens = self._room.longest
        self.pulse.max_concurrency = places.number
        self._engine_broken = False
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Scheduler waiting={list(self._waiting)} running={list(self._running)}>"

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def run(self, slices: TimeSlices | None = None) -> None:
        """Steps until `Shutdown`. After `EngineLost`, open sequences have no terminal message."""
        try:
            while not self._stopping:
                self._advance(slices)
        finally:
            self._outbox.send_all()  # what was generated before

    def _advance(self, slices: TimeSlices | None) -> None:
        try:
            if not self._running and (not self._waiting or self._room.short):
                if slices is not None:
                    slices.end()
                self._idle()
            if slices is not None and (self._running or self._waiting):
                if slices.contended:
                    self._outbox.send_all()  # tokens do not wait for the other engine's turn
                slices.begin()
            self.step()
        except Exception as exc:  # our own defect must not end the thread or leave a client waiting
            self._recover(exc)

    def _idle(self) -> None:
        self._outbox.send_all()  # what a failed step left
        # Only now: a token shall not pay for it.
        self.pulse.tuning, self.pulse.peak_bytes = self._engine.tuning(), self._engine.peak_bytes()
        if not self._waiting:
            self._room.forget_waiting()
        with suppress(Empty):
            self._receive(self._inbox.get(timeout=SHORT_SECONDS if self._waiting else IDLE_SECONDS))
            return
        self.look_around()

    def look_around(self) -> None:
        if not (self._running or self._engine_broken):
            self._room.look_around({})
            self.pulse.longest_tokens = self._room.longest

    def step(self) -> None:
        before = self.pulse.heartbeat
        self._drain_inbox()
        self._expire()
        if self._waiting or self._engine.reading():
            self._outbox.send_all()  # tokens do not wait for a prompt
        self._admit()
        self.pulse.running = len(self._running)
        self._outbox.send_due()  # a refusal does not wait for tokens
        self._decode()
        self.pulse.running = len(self._running)
        self.pulse.longest_tokens = self._room.longest
        self.pulse.memory_bytes = self._engine.memory_bytes()
        self.pulse.prefix_cache_bytes = self._engine.prefix_cache_bytes()
        self._outbox.send_due()
        if self.pulse.heartbeat != before:
            self._trials.progress()  # after delivery: a failed delivery is no progress

    def _drain_inbox(self) -> None:
        while True:
            try:
                command = self._inbox.get_nowait()
            except Empty:
                return
            self._receive(command)

    def _receive(self, command: Command) -> None:
        match command:
            case Submit(sequence) if self._stopping:
                self._fail(sequence.id, ShuttingDown())
            case Submit(sequence):
                self._waiting[sequence.id] = sequence
            case Abort(sequence_id):
                self._abort(sequence_id)
            case Inspect():
                self._outbox.put(Inspected(self._engine.prefixes()))
            case Shutdown():
                self._stopping = True
                self._fail_all(ShuttingDown)

    def _abort(self, sequence_id: int) -> None:
        is_running = self._running.pop(sequence_id, None) is not None
        if not is_running and self._waiting.pop(sequence_id, None) is None:
            return
        self._trials.forget(sequence_id)
        self.pulse.running = len(self._running)
        self._outbox.put(Aborted(sequence_id))
        self._outbox.send_due()
        # Last, because the engine keeps the state it has read, which can take as long as a step.
        if is_running:
            self._remove(sequence_id)

    def _expire(self) -> None:
        now = self._clock()
        for sequence in [s for s in self._waiting.values() if s.start_before <= now and not self._trials.is_retried(s)]:
            del self._waiting[sequence.id]
            self._fail(sequence.id, Overloaded(TOO_LONG, retry_after=RETRY_AFTER_SECONDS))

    def _admit(self) -> None:
        if self._engine_broken and self._waiting:
            self._rebuild()
        while self._waiting and len(self._running) < (1 if self._trials.open else self._places.number):
            sequence = self._waiting[self._whose_turn()]
            try:
                reserved = self._room.admit(sequence, self._lengths())
                if not reserved:
                    if self._room.short:
                        self.pulse.progress_at = self._clock()  # to wait for other programs is no stall
                    return
                del self._waiting[sequence.id]
                if sequence.request.raw_prompt is not None and sequence.request.raw_prompt.embeds:
                    self._embed(sequence)
                    return  # the others' next token comes before the next embedding
                writer = self._open_writer(sequence)
                self._engine.insert(sequence)
            except EngineLost:
                raise
            except Exception as exc:
                self._waiting.pop(sequence.id, None)
                self._fail(sequence.id, exc if isinstance(exc, ServiceError) else _not_started(sequence))
            else:
                self._running[sequence.id] = Running(sequence, writer, reserved)
                self._outbox.put(Started(sequence.id))

    def _embed(self, sequence: Sequence) -> None:
        vector = b64encode(self._engine.embed(sequence.prompt.tokens)).decode()
        self.pulse.read_tokens += len(sequence.prompt.tokens)
        self.pulse.heartbeat += 1
        self.pulse.progress_at = self._clock()
        events: list[Event] = [TextDelta(sequence.choice, vector), ChoiceFinished(sequence.choice, "stop")]
        self._outbox.put(Started(sequence.id))
        self._end(Finished(sequence=sequence.id, events=events, completion_tokens=0))

    def _whose_turn(self) -> int:
        if self._trials.open:
            return next(iter(self._waiting))
        # The choice stands until it is admitted, so that no sequence overtakes one that waits for memory.
        if self._next is None or self._next not in self._waiting:
            self._next = self._turns.choose({i: len(s.prompt.tokens) for i, s in self._waiting.items()})
        return self._next

    def _lengths(self) -> dict[int, int]:
        return {i: len(each.sequence.prompt.tokens) + each.reserved for i, each in self._running.items()}

    def _grow(self, now: float) -> None:
        if self._room.looks_again(now):
            self._room.look_around(self._lengths())
        for running in self._running.values():
            grows = running.reserved < running.sequence.max_tokens
            if grows and running.tokens + MARGIN_TOKENS >= running.reserved:
                running.reserved = self._room.grow(running.sequence, running.reserved, self._lengths())

    def _decode(self) -> None:
        if not self._running:
            return
        read, count, started = self._engine.prompt_tokens_read, len(self._running), self._clock()
        try:
            self._grow(started)
            tokens = self._engine.step()
        except Exception as exc:
            self._recover(exc)
            return
        read = self._engine.prompt_tokens_read - read
        self.pulse.read_tokens += read
        self.pulse.generated_tokens += len(tokens)
        if tokens or read:
            self.pulse.heartbeat += 1
            self.pulse.progress_at = self._clock()
        if read:
            self._report_reading()
        elif tokens:
            self._places.learn(count, len(tokens), self._clock() - started)
            self.pulse.max_concurrency = self._places.number
        uses = {token.sequence: token.prompt_use for token in tokens if token.end is not None}
        continued: set[int] = set()
        for token in tokens:
            running = self._running.get(token.sequence)
            if running is None or token.sequence in continued:
                continue
            if self._write(running, token, uses.get(token.sequence)):
                continued.add(token.sequence)

    def _report_reading(self) -> None:
        for number, tokens in self._engine.reading().items():
            running = self._running.get(number)
            if running is not None and tokens > running.read:
                running.read = tokens
                self._outbox.put(PromptRead(number, tokens))

    def _write(self, running: Running, token: Token, prompt_use: PromptUse | None) -> bool:
        """Returns True if an interjection replaces the later tokens of this step."""
        self._trials.acquit(token.sequence)
        if token.error:
            log.error("Sequence %d cannot go on: %s", token.sequence, token.error)
            if token.end is None:
                self._remove(token.sequence)
            self._fail(token.sequence, EngineFailed("The required form could not be enforced. Simplify the schema."))
            return False
        try:
            events, end, interjected = running.write(token)
        except Exception:
            log.exception("The answer of sequence %d could not be written", token.sequence)
            if token.end is None:
                self._remove(token.sequence)
            self._end(Failed(token.sequence, EngineFailed("The model's output could not be read.")))
            return False
        use = prompt_use
        if token.end is None and (interjected or end is not None):
            use = self._remove(token.sequence) or prompt_use
        if interjected:
            self._continue(running, events, use)
        elif end is not None:
            counts = {"completion_tokens": running.tokens, "reasoning_tokens": running.writer.reasoning_tokens}
            use = running.use or use or PromptUse()
            self._end(Finished(sequence=token.sequence, events=events, prompt_use=use, **counts))
        elif events:
            self._send(running, events)
        return interjected

    def _continue(self, running: Running, events: list[Event], use: PromptUse | None) -> None:
        """Starts the engine again behind the answer so far, which the prefix cache has just got."""
        number = running.sequence.id
        running.use = running.use or use
        try:
            if self._engine_broken:
                raise AnswerLost(LOST)
            self._engine.insert(running.continuation())
        except EngineLost:
            raise
        except Exception as exc:
            self._fail(number, exc if isinstance(exc, ServiceError) else _not_started(running.sequence))
            return
        self._running[number] = running
        if events:
            self._send(running, events)

    def _send(self, running: Running, events: list[Event]) -> None:
        self._outbox.put(Progress(running.sequence.id, events), urgent=not running.sent)
        running.sent = True

    def _end(self, delivery: Finished | Failed) -> None:
        self._running.pop(delivery.sequence, None)
        self._trials.forget(delivery.sequence)
        self._outbox.put(delivery)

    def _fail(self, sequence_id: int, error: ServiceError) -> None:
        self._end(Failed(sequence_id, error))

    def _remove(self, sequence_id: int) -> PromptUse | None:
        self._running.pop(sequence_id, None)
        try:
            return self._engine.remove(sequence_id)
        except Exception as exc:
            self._recover(exc)
            return None

    def _recover(self, exc: Exception) -> None:
        if isinstance(exc, EngineLost):
            raise exc
        lost, self._running = list(self._running.values()), {}
        self._trials.fail([running.sequence for running in lost], exc)
        log.error("The engine failed with %d sequences running; it is rebuilt", len(lost), exc_info=exc)
        self._engine_broken = True
        for running in reversed(lost):
            sequence = running.sequence
            if running.sent:
                self._fail(sequence.id, AnswerLost(LOST))
            elif self._trials.is_retried(sequence):
                self._fail(sequence.id, EngineFailed(LOST))
            else:
                self._trials.retry(sequence)
                self._waiting[sequence.id] = sequence
                self._waiting.move_to_end(sequence.id, last=False)

    def _rebuild(self) -> None:
        try:
            self._engine.reset()
            if self._trials.suspect is not None:
                self._probe(self._trials.suspect)
        except Exception as exc:
            raise EngineLost(f"The engine could not be rebuilt: {exc!r}") from exc
        self._trials.blame()
        self._engine_broken = False
        self.pulse.restarts += 1

    def _probe(self, suspect: Sequence) -> None:
        self._engine.insert(make_probe(suspect))
        if not any(token.sequence == PROBE for _ in range(PROBE_STEPS) for token in self._engine.step()):
            self._engine.remove(PROBE)
        log.warning("The engine failed twice with sequence %d, and works without it", suspect.id)

    def _fail_all(self, error: Callable[[], ServiceError]) -> None:
        # One error each: an exception collects the traceback of every place that raises it.
        for sequence_id in list(self._running):
            self._remove(sequence_id)
            self._fail(sequence_id, error())
        while self._waiting:
            self._fail(self._waiting.popitem(last=False)[0], error())


def _not_started(sequence: Sequence) -> EngineFailed:
    log.exception("Sequence %d could not be started", sequence.id)
    return EngineFailed("The generation could not be started. Try again.")
