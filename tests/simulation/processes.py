"""A machine whose engine processes are simulated: they load, answer, hang and die on the simulated clock."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any

import msgspec

from service.device.figures import DeviceFigures
from service.events import ChoiceFinished, Done, Event, TextDelta
from service.executor.base import ExecutorStatus
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
)
from service.executor.process.child import Child
from service.generation import GenerationRequest, Usage
from service.queries import TextFound

WIRE_SECONDS = 0.001
TICK_SECONDS = 1.0
TOKENS = 5
GIB = 2**30
# A process dies while it works on a question with this word.
POISON = "poison"


class Faults(msgspec.Struct):
    """Probabilities. `start`: the process cannot be created; `load`: it dies while it loads; `broken`: its model cannot
    be loaded; `hang`: it falls silent while it loads, answers or closes; `stuck`: it reports and never has the model;
    `full`: other programs have the memory."""

    start: float = 0.0
    load: float = 0.0
    broken: float = 0.0
    hang: float = 0.0
    stuck: float = 0.0
    full: float = 0.0


class Machine:
    """`live` are the processes of each model: one at most."""

    def __init__(self, random: Random, gib: float, faults: Faults) -> None:
        self.random = random
        self.faults = faults
        self.live: dict[str, SimulatedChild] = {}
        self.loads = 0
        self._bytes = int(gib * GIB)

    def read_device(self) -> DeviceFigures:
        free = self._bytes - sum(child.held_bytes for child in self.live.values())
        return DeviceFigures(system="simulated", cores=1, total=0, free=free)

    def spawner(self, name: str) -> Callable[[Callable[[list[ToServer]], None]], Child]:
        return lambda receive: SimulatedChild(self, name, receive)

    def happens(self, probability: float) -> bool:
        return self.random.random() < probability


class SimulatedChild(Child):
    """Two questions are worked on at a time. An answer is the model's name and the question, with a number for each
    token."""

    def __init__(self, machine: Machine, name: str, receive: Callable[[list[ToServer]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.heard_at = self._started_at = self._loop.time()
        self._killed_because = ""
        self.held_bytes = 0
        self._machine = machine
        self._name = name
        self._receive = receive
        self._closed = self._loop.create_future()
        self._wire: deque[Callable[[], None]] = deque()
        self._how = ""
        self._hangs = False
        self._status = ExecutorStatus(state="loading")
        self._places = asyncio.Semaphore(2)
        self._tasks: dict[int | str, asyncio.Task[None]] = {}

    @property
    def pid(self) -> int:
        return id(self)

    # The server's side

    async def connect(self) -> None:
        if self._machine.happens(self._machine.faults.start):
            raise OSError("no more processes")
        assert self._name not in self._machine.live, f"a second process of {self._name}"
        self._machine.live[self._name] = self
        self._machine.loads += 1
        await asyncio.sleep(0)

    def send(self, message: ToEngine) -> None:
        self._later(partial(self._take, message))

    def kill(self, because: str) -> None:
        self._killed_because = self._killed_because or because
        self.end(because)

    def dump_threads(self) -> None:
        pass

    async def until_closed(self, seconds: float | None = None) -> bool:
        await asyncio.wait({self._closed}, timeout=seconds)
        return self._closed.done()

    async def until_ended(self) -> str:
        await self.until_closed()
        await asyncio.sleep(self._machine.random.choice([0, 0.01]))
        return self._how

    # The engine's side

    def end(self, how: str) -> None:
        """What has been sent before still arrives."""
        if self._how:
            return
        self._how = how
        self._machine.live.pop(self._name, None)
        for task in self._tasks.values():
            task.cancel()
        self._later(self._close)

    def _later(self, arrival: Callable[[], None]) -> None:
        """A wire keeps the order, which timers of the same time may not."""
        self._wire.append(arrival)
        self._loop.call_later(WIRE_SECONDS, self._arrive_next)

    def _arrive_next(self) -> None:
        self._wire.popleft()()

    def _close(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)

    def _take(self, message: ToEngine) -> None:
        if self._how or self._hangs:
            return
        match message:
            case StartEngine(spec):
                self._begin("load", self._load(spec))
            case SubmitCall(call, request):
                self._begin(call, self._answer(call, request))
            case CountCall(call, request):
                self._say(CallFound(call, len(request.messages[-1].content)))
            case QueryCall(call, _):
                self._say(CallFound(call, TextFound(self._name)))
            case AbortCall(call):
                if call in self._tasks:
                    self._tasks[call].cancel()
            case CloseEngine() if "close" not in self._tasks:
                self._begin("close", self._leave())

    def _begin(self, name: int | str, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[name] = self._loop.create_task(work)
        task.add_done_callback(partial(self._forget, name))

    def _forget(self, name: int | str, task: "asyncio.Task[None]") -> None:
        del self._tasks[name]
        if not task.cancelled():
            task.result()

    async def _load(self, spec: EngineSpec) -> None:
        random, faults = self._machine.random, self._machine.faults
        self._report()
        self.held_bytes = spec.needs.weight_bytes // 2
        await asyncio.sleep(random.choice([0, 0.05, 0.5]))
        self._perhaps_hang()
        if self._machine.happens(faults.load):
            self.end("it died while it loaded")
        for probability, kind in ((faults.broken, "permanent"), (faults.full, "no_room")):
            if self._machine.happens(probability):
                self._say(StatusReport(ExecutorStatus(state="unhealthy", detail="it is not loaded", **{kind: True})))
                self.end("it left")
        await asyncio.sleep(0)
        self.held_bytes = spec.needs.weight_bytes
        if not self._machine.happens(faults.stuck):
            self._status = ExecutorStatus(state="healthy", memory_bytes=self.held_bytes)
        while True:
            self._report()
            await asyncio.sleep(TICK_SECONDS)

    async def _answer(self, call: int, request: GenerationRequest) -> None:
        random, question = self._machine.random, request.messages[-1].content
        await asyncio.sleep(random.choice([0, 0.001, 0.01]))
        self._say(CallAccepted(call, len(question)))
        async with self._places:
            self._say(CallReading(call, 0))
            await asyncio.sleep(random.choice([0, 0.01]))
            self._perhaps_hang()
            for number in range(1, TOKENS + 1):
                if POISON in question and random.random() < 0.5:
                    self.end("it was poisoned")
                self._say_events(call, TextDelta(0, f"{self._name} {question} {number} "))
                await asyncio.sleep(random.choice([0.001, 0.02]))
            self._say_events(
                call, ChoiceFinished(0, "length"), Done(Usage(prompt_tokens=len(question), completion_tokens=TOKENS))
            )

    async def _leave(self) -> None:
        self._perhaps_hang()
        await asyncio.sleep(self._machine.random.choice([0, 0.2]))
        self.end("it was closed")

    def _perhaps_hang(self) -> None:
        if self._machine.happens(self._machine.faults.hang):
            self._hangs = True

    def _report(self) -> None:
        self._say(StatusReport(self._status))

    def _say_events(self, call: int, *events: Event) -> None:
        self._say(CallEvents(call, list(events)))

    def _say(self, message: ToServer) -> None:
        if not self._how and not self._hangs:
            self._later(partial(self._arrive, message))

    def _arrive(self, message: ToServer) -> None:
        self.heard_at = self._loop.time()
        self._receive([message])
