"""An executor without threads: the real scheduler on a counting engine, stepped by the simulated clock."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from random import Random

import msgspec

from service.errors import EngineFailed, Overloaded, ShuttingDown
from service.events import Event, TextDelta
from service.executor.answer import RunningAnswer
from service.executor.base import Answer, ExecutorStatus
from service.executor.scheduling.messages import (
    Abort,
    Command,
    Delivery,
    Progress,
    Prompt,
    PromptRead,
    Sequence,
    Started,
    Submit,
)
from service.executor.scheduling.places import Places
from service.executor.scheduling.protocols import EngineLost, Token
from service.executor.scheduling.scheduler import Scheduler
from service.generation import GenerationRequest
from service.profile import ModelProfile
from tests.executor.engines import CountingEngine, NumberWriter

PROFILE = ModelProfile(id="simulated", fingerprint="simulated", context_length=1000)
REFUSAL_SECONDS = 0.05
STALL_SECONDS = 100.0


class EchoWriter(NumberWriter):
    """Writes the question before each number, so that an answer shows which question it answers."""

    def feed(self, token: Token) -> list[Event]:
        question = self._sequence.request.messages[-1].content
        return [TextDelta(self._sequence.choice, f"{question}{token.id} ")]


class _Open(msgspec.Struct, frozen=True):
    question: str
    answer: RunningAnswer
    begin: float


class SimulatedExecutor:
    """Up to `places` sequences run and `queue` wait. A step takes a random time and fails with probability `faults`.
    With `stalls`, one step takes `STALL_SECONDS`; `stalled` is true from then on.
    `generating` counts the generations of each question that run now, and `longest` has the seconds of its longest
    one. `begun` is called with the question of each new one. `unexpected` are deliveries to sequences that had
    ended."""

    profile = PROFILE

    def __init__(
        self,
        random: Random,
        *,
        places: int,
        queue: int,
        faults: float,
        stalls: bool,
        begun: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.generating: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.unexpected: list[Delivery] = []
        self.stalled = False
        self._stalls = stalls
        self._begun = begun
        self._random = random
        self._most = places + queue
        self._faults = faults
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._engine = CountingEngine(self._fail)
        self._scheduler = self._new_scheduler(places)
        self._places = places
        self._ids = itertools.count()
        self._answers: dict[int, _Open] = {}
        self._aborted: set[int] = set()
        self._stepping: asyncio.Task[None] | None = None
        self._closed = False

    def status(self) -> ExecutorStatus:
        running = self._scheduler.running
        return ExecutorStatus(state="healthy", running=running, waiting=len(self._answers) - running)

    async def start(self) -> None:
        pass

    async def submit(self, request: GenerationRequest) -> Answer:
        if self._closed:
            raise ShuttingDown
        if len(self._answers) >= self._most:
            raise Overloaded("full", retry_after=1.0)
        begin = asyncio.get_running_loop().time()
        await asyncio.sleep(self._random.choice([0, 0.001, 0.02]))
        if self._closed:
            raise ShuttingDown
        question = request.messages[-1].content
        sequence = Sequence(
            id=next(self._ids),
            choice=0,
            request=request,
            prompt=Prompt([1] * len(question)),
            sampling=request.sampling,
            max_tokens=request.max_tokens or 5,
            start_before=asyncio.get_running_loop().time() + 60,
        )
        answer = RunningAnswer([sequence.id], len(question), abort=self._abort)
        self._answers[sequence.id] = _Open(question, answer, begin)
        self.generating[question] += 1
        self._begun(question)
        self._inbox.put(Submit(sequence))
        if self._stepping is None:
            self._stepping = asyncio.get_running_loop().create_task(self._step_until_idle())
        try:
            await answer.begun(REFUSAL_SECONDS)
        except BaseException:
            await answer.aclose()
            raise
        return answer

    async def count_tokens(self, request: GenerationRequest) -> int:
        return len(request.messages[-1].content)

    async def aclose(self) -> None:
        self._closed = True
        for sequence in list(self._answers):
            self._end(sequence).fail(ShuttingDown())

    def heal(self) -> None:
        self._faults, self._stalls = 0, False

    def die(self) -> None:
        """From now on nothing happens here any more, as after kill -9."""
        self._closed = True
        self.generating.clear()
        if self._stepping is not None:
            self._stepping.cancel()

    async def _step_until_idle(self) -> None:
        while self._answers:
            await asyncio.sleep(self._random.choice([0.001, 0.005, 0.03]))
            if self._stalls and not self.stalled and self._random.random() < 0.05:
                self.stalled = True
                await asyncio.sleep(STALL_SECONDS)
            try:
                self._scheduler.step()
            except EngineLost:
                lost = list(self._answers)
                self._engine = CountingEngine(self._fail)
                self._scheduler = self._new_scheduler(self._places)
                for sequence in lost:
                    self._end(sequence).fail(EngineFailed("The engine was lost."))
        self._stepping = None

    def _new_scheduler(self, places: int) -> Scheduler:
        self._inbox = SimpleQueue()
        return Scheduler(
            self._engine,
            self._inbox,
            self._deliver,
            EchoWriter,
            places=Places(places),
            clock=lambda: asyncio.get_running_loop().time(),
        )

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.sequence not in self._answers:
                if not self._closed:
                    self.unexpected.append(delivery)
            elif isinstance(delivery, Started | PromptRead | Progress):
                self._answers[delivery.sequence].answer.take(delivery)
            else:
                self._end(delivery.sequence).take(delivery)

    def _end(self, sequence: int) -> RunningAnswer:
        ended = self._answers.pop(sequence)
        seconds = asyncio.get_running_loop().time() - ended.begin
        self.longest[ended.question] = max(seconds, self.longest.get(ended.question, 0))
        if sequence not in self._aborted:
            self.generating[ended.question] -= 1
        self._aborted.discard(sequence)
        return ended.answer

    def _abort(self, sequences: list[int]) -> None:
        for sequence in sequences:
            if sequence in self._answers:
                self._aborted.add(sequence)
                self.generating[self._answers[sequence].question] -= 1
            self._inbox.put(Abort(sequence))

    def _fail(self, step: int) -> None:
        if self._random.random() < self._faults:
            raise RuntimeError(f"injected at step {step}")
