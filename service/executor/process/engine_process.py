import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from service.errors import BadRequest, BodyTooLarge, EngineFailed, NotReady, ServiceError, ShuttingDown, Unrunnable
from service.events import Done
from service.executor.base import ExecutorStatus, ModelState, refuse_when_full
from service.executor.process.call_messages import (
    AbortCall,
    CallAccepted,
    CallCounted,
    CallEvents,
    CallFailed,
    CallFound,
    CallReading,
    CloseEngine,
    CountCall,
    EngineSpec,
    QueryCall,
    StartEngine,
    StatusReport,
    SubmitCall,
    ToServer,
    to_error,
)
from service.executor.process.child import Child
from service.executor.process.frames import FrameTooLarge
from service.executor.process.identification import Identify, SharedTask, with_fingerprint
from service.executor.process.pending_call import CallReply, PendingCall, RemoteAnswer
from service.executor.process.quarantine import Quarantine, sendable
from service.generation import GenerationRequest
from service.models.errors import InvalidModel
from service.queries import Finding, Query

log = logging.getLogger(__name__)

DEATHS_AT_MOST = 3
DEATH_WINDOW_SECONDS = 600.0
WATCH_SECONDS = 1.0
CLOSE_SECONDS = 2.0

# Silence allowed while the executor loads: imports hold the interpreter's lock for seconds.
STARTUP_SECONDS = 60.0


class EngineProcess:
    """Takes up to `max_concurrency` + `max_queue` sequences.

    A process that dies, or is silent for twice `stall_seconds`, is replaced. Calls that received nothing run again
    once; the others end in `AnswerLost`. After more than `deaths_at_most` deaths in ten minutes, or if the model
    cannot be loaded, none replaces it.

    A `spec` without a fingerprint gets it before its model is loaded.

    After `unload` there is no process, and the next call awaits `wanted`, which has to call `load` (the default).
    """

    def __init__(
        self, spec: EngineSpec, *, deaths_at_most: int = DEATHS_AT_MOST, identify: Identify = with_fingerprint
    ) -> None:
        self.profile = spec.profile
        self.spec = spec
        self.wanted: Callable[[], Awaitable[None]] = self.load
        self.used_at = 0.0
        self.loaded_bytes = 0
        self.settled = asyncio.Event()  # a load has succeeded or failed
        self._with_fingerprint = identify
        self._settings = spec.settings
        self._deaths_at_most = deaths_at_most
        self._ids = itertools.count()
        self._calls: dict[int, PendingCall] = {}
        self._wanting = 0
        self._child: Child | None = None
        self._running: asyncio.Task[None] | None = None
        self._identifying = SharedTask(self._identify)
        self._reported = ExecutorStatus(state="loading")
        self._was_ready = False
        self._silence_logged = False
        self._deaths: deque[float] = deque()
        self._quarantine = Quarantine()
        # Whether another request was answered since one was found guilty.
        self._works = False
        # Counts of ended processes.
        self._past = ExecutorStatus(state="unhealthy")
        self._last_end = ""
        self._failure = ""
        self._ending = False
        self._closing = False

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def resident(self) -> bool:
        """True with a process, or between two."""
        return self._running is not None and not self._running.done()

    @property
    def loaded(self) -> bool:
        """True if it takes calls, which wait while the model is read."""
        return self.resident and not self._ending

    @property
    def busy(self) -> bool:
        return bool(self._calls or self._wanting)

    def status(self) -> ExecutorStatus:
        reported = self._reported
        state, detail = self._judge()
        return msgspec.structs.replace(
            reported,
            state=state,
            detail=detail,
            unloaded=self._running is None,
            waiting=max(reported.waiting, self._in_flight() + self._wanting - reported.running),
            engine_restarts=self._past.engine_restarts + reported.engine_restarts,
            generated_tokens=self._past.generated_tokens + reported.generated_tokens,
            read_tokens=self._past.read_tokens + reported.read_tokens,
        )

    async def start(self) -> None:
        await self.load()

    async def load(self) -> None:
        """Forgets earlier failures and returns at once. Does nothing if a process runs."""
        if self.resident:
            return
        self._failure, self._last_end = "", ""
        self._deaths.clear()
        self._quarantine.clear()
        self._reported = ExecutorStatus(state="loading")
        self.settled.clear()
        self.used_at = asyncio.get_running_loop().time()
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def unload(self) -> None:
        if self._running is not None:
            await self._end_process(lambda: NotReady(f"The model {self.profile.id} was unloaded. Try again."))
            self._running = None
            self.settled.set()
            self._keep_counts()

    async def identify(self) -> None:
        """Reads the files although the model may not be loaded."""
        if self.profile.fingerprint:
            return
        refuse_when_full(self._in_flight() + self._wanting, self._settings)
        self._wanting += 1
        try:
            await self._until_identified()
        finally:
            self._wanting -= 1
        if not self.profile.fingerprint:
            raise ShuttingDown if self._closing else NotReady(self._failure or f"{self.profile.id} was unloaded.")

    async def submit(self, request: GenerationRequest) -> RemoteAnswer:
        refuse_when_full(self._in_flight() + self._wanting, self._settings)
        call = PendingCall(SubmitCall(next(self._ids), request), request.n, self._abort)
        return RemoteAnswer(await self._accepted(call), call)

    async def count_tokens(self, request: GenerationRequest) -> int:
        count: int = await self._accepted(PendingCall(CountCall(next(self._ids), request), 0, self._abort))
        return count

    async def ask(self, query: Query) -> Finding:
        finding: Finding = await self._accepted(PendingCall(QueryCall(next(self._ids), query), 0, self._abort))
        return finding

    async def aclose(self) -> None:
        """May be called twice. Kills a process that still loads, or does not end within the grace period."""
        self._closing = True
        await self._end_process(ShuttingDown)

    async def _end_process(self, error: Callable[[], ServiceError]) -> None:
        self._ending = True
        self._fail_all(lambda _: error())
        self._identifying.cancel()
        child = self._child
        if child is not None:
            if self._reported.state == "loading":
                child.kill("it was to end")
            child.send(CloseEngine())
            if not await child.until_closed(max(CLOSE_SECONDS, self._settings.shutdown_grace_seconds)):
                log.warning("The engine process is still busy, and is killed")
                child.kill("it was to end")
        if self._running is not None:
            await asyncio.wait({self._running})  # a cancelled caller does not cancel it
        self._ending = False

    # Calls

    def _in_flight(self) -> int:
        return sum(call.sequences for call in self._calls.values())

    async def _accepted(self, call: PendingCall) -> Any:
        """Returns the number of prompt tokens, or the finding."""
        await self._until_loaded()
        if self._closing:
            raise ShuttingDown
        if self._failure:
            raise NotReady(self._failure)
        self._quarantine.check(call)
        self._calls[call.message.call] = call
        self._send_next()
        try:
            return await call.accepted
        except asyncio.CancelledError:
            self._abort(call)
            raise

    async def _until_loaded(self) -> None:
        self._wanting += 1
        try:
            while not (self.loaded or self._closing or self._failure):
                await self.wanted()
        finally:
            self._wanting -= 1

    def _send_next(self) -> None:
        """Calls wait here until the process has loaded the model."""
        if self._child is not None and self._was_ready and not self._ending:
            for call in sendable(self._calls.values()):
                if not call.inside:  # the end of one that cannot be sent has sent the others
                    self._send(self._child, call)

    def _send(self, child: Child, call: PendingCall) -> None:
        call.inside = True
        try:
            child.send(call.message)
        except FrameTooLarge as exc:
            self._end(call, BodyTooLarge(f"The request is too large for the engine: {exc}."))
        except (RecursionError, UnicodeError) as exc:
            self._end(call, BadRequest(f"The request cannot be passed to the engine: {exc}."))

    def _abort(self, call: PendingCall) -> None:
        if self._remove(call) and call.inside and self._child is not None:
            self._child.send(AbortCall(call.message.call))

    def _end(self, call: PendingCall, error: ServiceError) -> None:
        self._remove(call)
        call.fail(error)

    def _remove(self, call: PendingCall) -> bool:
        self.used_at = asyncio.get_running_loop().time()
        found = self._calls.pop(call.message.call, None) is not None
        self._send_next()
        return found

    def _fail_all(self, error: Callable[[PendingCall], ServiceError]) -> None:
        # One error each: an exception collects the traceback of every place that raises it.
        for call in list(self._calls.values()):
            self._end(call, error(call))

    def _receive(self, messages: list[ToServer]) -> None:
        for message in messages:
            if isinstance(message, StatusReport):
                self._reported = message.status
                self._was_ready |= message.status.state == "healthy"
                if self._was_ready:
                    self.settled.set()
                    self._send_next()
                self.loaded_bytes = max(self.loaded_bytes, message.status.memory_bytes or 0)
            elif (call := self._calls.get(message.call)) is not None:
                self._pass_on(call, message)

    def _pass_on(self, call: PendingCall, message: CallReply) -> None:
        match message:
            case CallReading(_, tokens):
                call.read_tokens = tokens
            case CallEvents(_, events):
                call.events += len(events)
                last = isinstance(events[-1], Done)
                if last:
                    self._works |= not call.suspected
                    self._remove(call)
                call.queue.put(events, last=last)
            case CallAccepted(_, tokens):
                call.accept(tokens)
            case CallCounted(_, found) | CallFound(_, found):
                self._remove(call)
                call.accept(found)
            case CallFailed():
                self._end(call, to_error(message))
        ended = message.call not in self._calls
        if call.alone_until is not None and (ended or call.events > call.alone_until):
            self._quarantine.acquit(call)
            self._send_next()

    # The processes

    async def _until_identified(self) -> None:
        if not (self.profile.fingerprint or self._failure or self._closing):
            await self._identifying.wait()

    async def _identify(self) -> None:
        try:
            self.spec = await self._with_fingerprint(self.spec)
            self.profile = self.spec.profile
        except InvalidModel as exc:
            self._give_up(str(exc))

    async def _run(self) -> None:
        await self._until_identified()
        while not self._ending and not self._failure:
            try:
                child = self._child = Child(self._opened, self._receive)
                await child.connect()
            except OSError as exc:
                self._give_up(f"The engine process cannot be started: {exc.strerror or exc}.")
                return
            log.info("Engine process %d loads %s", child.pid, self.profile.id)
            await self._watch(child)
            reason = await child.until_ended()
            self._child = None
            if not self._ending:
                self._replace(reason)

    def _opened(self) -> None:
        if self._child is not None:
            self._child.send(StartEngine(self.spec))

    async def _watch(self, child: Child) -> None:
        limit = self._settings.stall_seconds
        self._silence_logged = False
        while not await child.until_closed(min(WATCH_SECONDS, limit / 4)):
            silence = self._silence()
            if silence >= 2 * limit:
                child.kill(f"it was silent for {silence:.0f} s")
            elif silence >= limit and not self._silence_logged:
                self._silence_logged = True
                log.error("The engine process has been silent for %.0f s. Its threads:", silence)
                child.dump_threads()

    def _silence(self) -> float:
        """Seconds beyond the silence that loading allows."""
        if self._child is None:
            return 0.0
        usual = 0.0 if self._was_ready else STARTUP_SECONDS
        return max(0.0, asyncio.get_running_loop().time() - self._child.heard_at - usual)

    def _judge(self) -> tuple[ModelState, str]:
        reported = self._reported
        if self._failure:
            return "unhealthy", self._failure
        if self._running is None:
            return "healthy", f"{self.profile.id} is not loaded; the next request loads it"
        if reported.state == "loading":
            return "loading", f"loading {self.profile.id}" + (f" again. {self._last_end}" if self._last_end else "")
        silence = self._silence()
        if silence >= self._settings.stall_seconds:
            return "degraded", f"the engine process has been silent for {silence:.0f} s"
        return reported.state, reported.detail

    def _replace(self, reason: str) -> None:
        reported = self._keep_counts()
        end = f"The engine process has ended: {reason}"
        if reported.state == "unhealthy":
            end = reported.detail
        if reported.permanent:
            self._give_up(end)
            return
        log.error("%s", end)
        for call, error in self._quarantine.blame(self._calls.values(), end):
            self._end(call, error)
            if isinstance(error, Unrunnable) and self._works:
                self._deaths.clear()
                self._works = False
        if not self._may_restart():
            self._give_up(f"{end}. It has ended {len(self._deaths)} times within {DEATH_WINDOW_SECONDS:g} s.")
            return
        self._past = msgspec.structs.replace(self._past, engine_restarts=self._past.engine_restarts + 1)
        self._last_end = end

    def _keep_counts(self) -> ExecutorStatus:
        self._past = self.status()
        reported, self._reported = self._reported, ExecutorStatus(state="loading")
        self._was_ready = False
        return reported

    def _may_restart(self) -> bool:
        now = asyncio.get_running_loop().time()
        while self._deaths and self._deaths[0] <= now - DEATH_WINDOW_SECONDS:
            self._deaths.popleft()
        self._deaths.append(now)
        return len(self._deaths) <= self._deaths_at_most

    def _give_up(self, failure: str) -> None:
        log.critical("%s", failure)
        self._failure = failure
        self.settled.set()
        self._fail_all(lambda call: EngineFailed(failure) if call.accepted.done() else NotReady(failure))
