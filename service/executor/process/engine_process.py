import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from service.device.memory import LoadNeeds
from service.errors import EngineFailed, NotReady, ServiceError, ShuttingDown
from service.executor.base import RETRY_AFTER_SECONDS, ExecutorStatus, ModelState, refuse_when_full
from service.executor.process.call_messages import (
    CountCall,
    EngineSpec,
    QueryCall,
    StartEngine,
    StatusReport,
    SubmitCall,
    ToServer,
)
from service.executor.process.child import Child
from service.executor.process.engine_calls import EngineCalls
from service.executor.process.identification import Identification, Identify, with_fingerprint
from service.executor.process.outage import Outage
from service.executor.process.pending_call import PendingCall
from service.generation import GenerationRequest
from service.profile import ModelProfile
from service.queries import Finding, Query

log = logging.getLogger(__name__)

DEATHS_AT_MOST = 3
DEATH_WINDOW_SECONDS = 600.0
WATCH_SECONDS = 1.0
CLOSE_SECONDS = 2.0

# Silence allowed while the executor loads: imports hold the interpreter's lock for seconds.
STARTUP_SECONDS = 60.0

# A load that takes longer hangs: this, and the time that a very slow network drive takes for the weights.
LOAD_SECONDS = 600.0
LOAD_BYTES_PER_SECOND = 5e6


def load_seconds(needs: LoadNeeds) -> float:
    return LOAD_SECONDS + needs.weight_bytes / LOAD_BYTES_PER_SECOND


class EngineProcess:
    """Takes up to `max_concurrency` + `max_queue` sequences.

    A process that dies, or is silent for twice `stall_seconds`, is replaced. Calls that received nothing run again
    once; the others end in `AnswerLost`. After more than `deaths_at_most` deaths in ten minutes, or if the model
    cannot be loaded, none replaces it. A refusal for memory, or a load that took longer than `load_within` allows, is
    forgotten after `RETRY_AFTER_SECONDS`: the next call loads again.

    The fingerprint is read anew for each process. It is empty meanwhile, and a while after the last process has ended:
    the files may change. Without a process, a call awaits `wanted`, which has to call `load` (the default). No call
    waits longer than `queue_timeout_seconds` for the fingerprint, for `wanted`, or for a process that takes it.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        deaths_at_most: int = DEATHS_AT_MOST,
        identify: Identify = with_fingerprint,
        load_within: Callable[[LoadNeeds], float] = load_seconds,
        spawn: Callable[[Callable[[list[ToServer]], None]], Child] = Child,
    ) -> None:
        self.wanted: Callable[[], Awaitable[None]] = self.load
        self.loaded_bytes = 0
        self.settled = asyncio.Event()  # the model is loaded, could not be loaded, or will not be
        self._load_within = load_within
        self._identification = Identification(spec, identify, lambda: self.resident)
        self._outage = Outage()
        self._spawn = spawn
        self._settings = spec.settings
        self._ids = itertools.count()
        self._calls = EngineCalls(spec.settings.queue_timeout_seconds, self._too_late)
        self._wanting = 0  # calls that wait for `wanted` or the fingerprint
        # From `load` to the end of its last process. The other fields are about this run.
        self._running: asyncio.Task[None] | None = None
        self.ending = False  # its last process was asked to end
        self._child: Child | None = None
        self._loaded = asyncio.Event()  # by the present process
        self._hung = False  # the present process was killed because its load took too long
        self._reported = ExecutorStatus(state="loading")  # of the present process
        self._past = ExecutorStatus(state="unhealthy")  # counts and `last_end` of ended processes
        self._context_tokens: int | None = None  # the last known: clients ask while no process is loaded
        self._deaths: deque[float] = deque(maxlen=deaths_at_most + 1)
        self._last_end = ""
        self._closing = False

    @property
    def profile(self) -> ModelProfile:
        return self._identification.profile

    @property
    def spec(self) -> EngineSpec:
        """With the last fingerprint that was read."""
        return self._identification.spec

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def resident(self) -> bool:
        """True between two processes too."""
        return self._running is not None

    @property
    def loading(self) -> bool:
        return self.resident and not self.settled.is_set()

    @property
    def takes_calls(self) -> bool:
        """Calls wait while the model is loaded."""
        return self.resident and not self.ending

    @property
    def busy(self) -> bool:
        return bool(self._calls or self._wanting)

    @property
    def used_at(self) -> float:
        return self._calls.used_at

    def status(self) -> ExecutorStatus:
        reported, past = self._reported, self._past
        state, detail = self._judge()
        return msgspec.structs.replace(
            reported,
            state=state,
            detail=detail,
            unloaded=not (self.resident or self._outage),
            context_tokens=self._context_tokens,
            waiting=max(reported.waiting, self._calls.sequences + self._wanting - reported.running),
            last_end=past.last_end,
            engine_restarts=past.engine_restarts + reported.engine_restarts,
            generated_tokens=past.generated_tokens + reported.generated_tokens,
            read_tokens=past.read_tokens + reported.read_tokens,
        )

    async def start(self) -> None:
        await self.load()

    async def load(self) -> None:
        """Forgets earlier failures. Does not wait for the model."""
        if self.ending:
            await self.until_away()
        if self.resident or self._closing:
            return
        self._outage.forget()
        self._last_end = ""
        self._deaths.clear()
        self._calls.begin_anew()
        self.settled.clear()
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def until_loaded(self) -> None:
        """Raises `NotReady` and `ShuttingDown`."""
        await self.settled.wait()
        if self._outage or not self.takes_calls:
            raise self._refusal()

    async def unload(self) -> None:
        """A cancelled caller does not stop it. Kills a process that still loads."""
        await self._end_run()

    async def aclose(self) -> None:
        """May be called twice. Kills a process that still loads, or does not end within the grace period."""
        self._closing = True
        self.settled.set()
        await self._end_run()

    async def identify(self) -> None:
        """Does not load the model."""
        if self.profile.fingerprint:
            return
        self._refuse_when_full(self._calls.sequences)
        async with self._waiting():
            while not self.profile.fingerprint:
                await self._read_files()

    async def submit(self, request: GenerationRequest) -> PendingCall:
        self._refuse_when_full(self._calls.sequences)
        call = PendingCall(SubmitCall(next(self._ids), request), request.n, self._calls.abort)
        call.prompt_tokens = await self._accepted(call)
        return call

    async def count_tokens(self, request: GenerationRequest) -> int:
        self._refuse_when_full(len(self._calls))
        count: int = await self._accepted(PendingCall(CountCall(next(self._ids), request), 0, self._calls.abort))
        return count

    async def ask(self, query: Query) -> Finding:
        self._refuse_when_full(len(self._calls))
        finding: Finding = await self._accepted(PendingCall(QueryCall(next(self._ids), query), 0, self._calls.abort))
        return finding

    # Calls

    def _refuse_when_full(self, inside: int) -> None:
        refuse_when_full(inside + self._wanting, self._settings)

    async def _accepted(self, call: PendingCall) -> Any:
        """Returns the number of prompt tokens, or the finding."""
        async with self._waiting():
            while not (self.takes_calls or self._closing or self._outage):
                await self.wanted()
        if self._closing or self._outage:
            raise self._refusal()
        self._calls.add(call)
        try:
            return await call.accepted
        except asyncio.CancelledError:
            self._calls.abort(call)
            raise

    @asynccontextmanager
    async def _waiting(self) -> AsyncIterator[None]:
        self._wanting += 1
        try:
            async with asyncio.timeout(self._settings.queue_timeout_seconds):
                yield
        except TimeoutError:
            raise self._too_late() from None
        finally:
            self._wanting -= 1

    def _too_late(self) -> NotReady:
        message = f"{self.profile.id} was not ready within {self._settings.queue_timeout_seconds:g} seconds"
        return NotReady(f"{message}. Try again later, or raise queueTimeoutSeconds.", retry_after=RETRY_AFTER_SECONDS)

    def _refusal(self) -> ServiceError:
        if self._closing:
            return ShuttingDown()
        if self._outage:
            return self._outage.error()
        return NotReady(f"The model {self.profile.id} was unloaded. Try again.")

    def _receive(self, messages: list[ToServer]) -> None:
        for message in messages:
            if isinstance(message, StatusReport):
                self._see(message.status)
            else:
                self._calls.take(message)

    def _see(self, status: ExecutorStatus) -> None:
        self._reported = status
        if status.context_tokens is not None:
            self._context_tokens = status.context_tokens
        if status.loaded:
            self._loaded.set()

    # The run: one process after another

    async def _run(self) -> None:
        try:
            while not (self.ending or self._outage):
                self._identification.forget()
                await self._read_files()
                if not self.ending:
                    await self._run_process()
        except ServiceError as exc:
            if not self.ending:
                self._give_up(exc.message, for_good=exc.retry_after is None)
        except Exception as exc:  # else requests would wait for ever
            if self._child is not None:
                self._child.kill("it cannot be used")
            self._give_up(f"The engine process cannot be started: {exc}.", for_good=True)
        self._running, self._child, self.ending = None, None, False
        self.settled.set()
        self._identification.forget_soon()

    async def _read_files(self) -> None:
        """Raises `NotReady` and `ShuttingDown`."""
        if self._closing:
            raise self._refusal()
        seconds = self._load_within(self.spec.needs)
        try:
            async with asyncio.timeout(seconds):
                was_read = await self._identification.read()
        except TimeoutError:
            self._identification.cancel()  # the next call begins a new reading
            message = f"The files of {self.profile.id} could not be read within {seconds:.0f} s."
            raise NotReady(message, retry_after=RETRY_AFTER_SECONDS) from None
        if not was_read:
            raise self._refusal()

    async def _run_process(self) -> None:
        child = self._child = self._spawn(self._receive)
        await child.connect()
        log.info("Engine process %d loads %s", child.pid, self.profile.id)
        child.send(StartEngine(self.spec))
        self._loaded.clear()
        self._hung = False
        serving = asyncio.get_running_loop().create_task(self._serve(child))
        await self._watch(child)
        serving.cancel()
        reason = await child.until_ended()
        self._past, reported = self.status(), self._reported
        self._child, self._reported = None, ExecutorStatus(state="loading")
        if not self.ending:
            self._judge_death(reason, reported)

    async def _serve(self, child: Child) -> None:
        await self._loaded.wait()
        # The files may have changed after their fingerprint was read and before the process read them.
        if await self._identification.changed():
            child.kill("the files of the model changed while it read them")
        elif not (self.ending or child.killed):
            # Later figures include the state of answers, which a load does not need.
            self.loaded_bytes = (self._reported.memory_bytes or 0) - (self._reported.prefix_cache_bytes or 0)
            self.settled.set()
            self._calls.serve(child)

    async def _watch(self, child: Child) -> None:
        limit, logged = self._settings.stall_seconds, False
        while not await child.until_closed(min(WATCH_SECONDS, limit / 4)):
            silence = self._silence()
            if silence >= 2 * limit:
                child.kill(f"it was silent for {silence:.0f} s")
            elif not self.settled.is_set() and child.age >= self._load_within(self.spec.needs):
                self._hung = True
                child.kill(f"it had not loaded the model after {child.age:.0f} s")
            elif silence >= limit and not logged:
                logged = True
                log.error("The engine process has been silent for %.0f s. Its threads:", silence)
                child.dump_threads()

    def _judge_death(self, reason: str, reported: ExecutorStatus) -> None:
        end = reported.detail if reported.state == "unhealthy" else f"The engine process has ended: {reason}"
        self._past = msgspec.structs.replace(self._past, last_end=end)
        if reported.permanent or reported.no_room or self._hung:
            self._give_up(end, for_good=reported.permanent)
            return
        log.error("%s", end)
        if self._calls.lose(end):
            self._deaths.clear()
        if self._died_too_often():
            often = f"It has ended {len(self._deaths)} times within {DEATH_WINDOW_SECONDS:g} s."
            self._give_up(f"{end}. {often}", for_good=True)
            return
        self._past = msgspec.structs.replace(self._past, engine_restarts=self._past.engine_restarts + 1)
        self._last_end = end
        self.settled.clear()

    def _died_too_often(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._deaths.append(now)
        return len(self._deaths) == self._deaths.maxlen and now - self._deaths[0] < DEATH_WINDOW_SECONDS

    def _give_up(self, reason: str, *, for_good: bool) -> None:
        log.critical("%s", reason)
        self._outage.begin(reason, for_good=for_good)
        self.settled.set()
        self._calls.end_all(lambda call: EngineFailed(reason) if call.accepted.done() else self._outage.error())

    async def _end_run(self) -> None:
        self._identification.cancel()
        if not self.resident:
            return
        self.ending = True
        self._calls.end_all(lambda _: self._refusal())
        if self._child is not None:
            loading = self._reported.state == "loading"
            self._child.close(0 if loading else max(CLOSE_SECONDS, self._settings.shutdown_grace_seconds))
        await self.until_away()

    async def until_away(self) -> None:
        if self._running is not None:
            await asyncio.wait({self._running})  # a cancelled caller does not cancel it

    # Its state

    def _silence(self) -> float:
        """Seconds beyond the silence that loading allows."""
        if self._child is None:
            return 0.0
        usual = STARTUP_SECONDS if self._reported.state == "loading" else 0.0
        return max(0.0, asyncio.get_running_loop().time() - self._child.heard_at - usual)

    def _judge(self) -> tuple[ModelState, str]:
        reported = self._reported
        if self._outage:
            return "unhealthy", self._outage.reason
        if not self.resident:
            return "healthy", f"{self.profile.id} is not loaded; the next request loads it"
        if not self.settled.is_set():
            return "loading", f"loading {self.profile.id}" + (f" again. {self._last_end}" if self._last_end else "")
        silence = self._silence()
        if silence >= self._settings.stall_seconds:
            return "degraded", f"the engine process has been silent for {silence:.0f} s"
        return reported.state, reported.detail
