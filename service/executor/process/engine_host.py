import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

from service.errors import EngineFailed, InternalError, NotReady, ServiceError
from service.events import Event
from service.executor.answer import RunningAnswer
from service.executor.base import Executor
from service.executor.process.call_messages import (
    AbortCall,
    CallAccepted,
    CallEvents,
    CallFound,
    CallReading,
    CloseEngine,
    CountCall,
    EngineSpec,
    QueryCall,
    StartEngine,
    StatusReport,
    SubmitCall,
    ToEngine,
    ToServer,
    failed,
)
from service.executor.process.frames import BadFrame, FrameReader, encode_frame
from service.executor.process.log_lines import write_marked_lines
from service.generation import GenerationRequest
from service.queries import Finding

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
LOADING_TICK_SECONDS = 0.02  # calls wait in the server for the first report after the load
ALIVE_SECONDS = 1.0
LEAVE_SECONDS = 2.0
UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h


class EngineHost(asyncio.Protocol):
    """Runs any `Executor`. All messages of one turn of the event loop leave in one frame, so each delivery of the
    scheduler wakes the server once.

    The process ends with the socket, or once its executor has failed.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader: FrameReader[ToEngine] = FrameReader(list[ToEngine])
        self._transport: asyncio.Transport
        self._executor: Executor
        self._starting: asyncio.Task[None]
        self._closing: asyncio.Task[None] | None = None
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._unsent: list[ToServer] = []
        self._status: StatusReport | None = None
        self._sent_at = 0.0
        self._flushing = False
        self._exit_code = 0
        self._writable = asyncio.Event()
        self._writable.set()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._reader.feed(data)
        except BadFrame as exc:
            log.critical("The server sent a message that cannot be read: %s", exc)
            exit_now(UNAVAILABLE)
        for message in messages:
            self._take(message)

    def connection_lost(self, exc: Exception | None) -> NoReturn:
        exit_now(self._exit_code)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Requests of the server

    def _take(self, message: ToEngine) -> None:
        match message:
            case StartEngine(spec):
                self._starting = self._loop.create_task(self._start(spec))
            case SubmitCall(call, request):
                self._begin(call, lambda: self._answer(call, request))
            case CountCall(call, request):
                self._begin(call, lambda: self._find(call, self._executor.count_tokens(request)))
            case QueryCall(call, query):
                self._begin(call, lambda: self._find(call, self._executor.ask(query)))
            case AbortCall(call):
                if call in self._calls:
                    self._calls[call].cancel()
            case CloseEngine() if self._closing is None:
                self._closing = self._loop.create_task(self._close())

    async def _start(self, spec: EngineSpec) -> None:
        write_marked_lines(debug=spec.settings.debug_level > 0)
        self._alive_seconds = min(ALIVE_SECONDS, spec.settings.stall_seconds / 4)
        module, _, function = spec.factory.partition(":")
        try:
            self._executor = getattr(importlib.import_module(module), function)(spec)
            await self._executor.start()
        except Exception:
            log.exception("The executor could not be started")
            exit_now(UNAVAILABLE)
        self._tick()

    def _begin(self, call: int, work: Callable[[], Awaitable[None]]) -> None:
        task = self._calls[call] = self._loop.create_task(self._run(call, work))
        task.add_done_callback(lambda _: self._calls.pop(call))

    async def _run(self, call: int, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except ServiceError as error:
            self._fail(call, error)
        except Exception:
            log.exception("A request failed in the engine process")
            self._fail(call, InternalError("The server failed while it generated; its log has the details."))

    async def _answer(self, call: int, request: GenerationRequest) -> None:
        answer = await self._executor.submit(request)
        self._send(CallAccepted(call, answer.prompt_tokens))
        if isinstance(answer, RunningAnswer):
            answer.watch_reading(lambda tokens: self._send(CallReading(call, tokens)))
        try:
            async for event in answer.events():
                self._send_event(call, event)
                if not self._writable.is_set():
                    await self._writable.wait()
        finally:
            await answer.aclose()

    async def _find(self, call: int, finding: Awaitable[Finding | int]) -> None:
        self._send(CallFound(call, await finding))

    def _fail(self, call: int, error: ServiceError) -> None:
        if isinstance(error, EngineFailed | NotReady) and self._executor.status().state == "unhealthy":
            self._flush_soon()  # not the request's fault: the server may run it again
        else:
            self._send(failed(call, error))

    async def _close(self) -> None:
        await self._executor.aclose()
        await self._leave(0)

    async def _leave(self, code: int) -> None:
        # A call that is refused for good must not be lost, or the server would run it again.
        if self._calls:
            await asyncio.wait(self._calls.values(), timeout=LEAVE_SECONDS)
        self._flush()
        self._exit_code = code
        self._transport.close()
        self._loop.call_later(LEAVE_SECONDS, exit_now, code)

    # Messages to the server

    def _tick(self) -> None:
        if self._closing is None:
            self._flush()
        loading = self._status is not None and self._status.status.state == "loading"
        seconds = LOADING_TICK_SECONDS if loading else TICK_SECONDS
        self._loop.call_later(min(seconds, self._alive_seconds), self._tick)

    def _send_event(self, call: int, event: Event) -> None:
        last = self._unsent[-1] if self._unsent else None
        if isinstance(last, CallEvents) and last.call == call:
            last.events.append(event)
        else:
            self._send(CallEvents(call, [event]))

    def _send(self, message: ToServer) -> None:
        self._unsent.append(message)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        now = self._loop.time()
        status = StatusReport(self._executor.status())
        if status != self._status or now - self._sent_at >= self._alive_seconds:
            self._status = status
            self._unsent.append(status)
        if self._unsent and not self._transport.is_closing():
            self._sent_at = now
            self._transport.write(encode_frame(self._unsent))
        self._unsent = []
        if status.status.state == "unhealthy" and self._closing is None:
            self._closing = self._loop.create_task(self._leave(UNAVAILABLE))


def exit_now(code: int) -> NoReturn:
    # No unwinding: Python would free data that other threads still compute with.
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)
