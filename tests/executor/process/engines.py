"""Executors for engine processes under test, as `EngineSpec.factory` names them."""

import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from llguidance import LLMatcher

from service.errors import ContextLengthExceeded
from service.events import Event
from service.executor.base import Executor
from service.executor.mlx_executor import MlxExecutor
from service.executor.process.call_messages import EngineSpec
from service.executor.process.frames import HEADER, MAX_FRAME_BYTES
from service.executor.prompt.grammars import ConstrainingRenderer, GrammarCompiler
from service.executor.prompt.preparation import JobLimits
from service.executor.runtime import Runtime, SharedRuntime, load_runtime
from service.executor.scheduling.messages import Prompt
from service.executor.scheduling.protocols import Engine, Token
from service.executor.scheduling.time_slices import open_time_slices
from service.executor.scripted import ScriptedExecutor, echo
from service.generation import GenerationRequest
from service.models.errors import NoRoom
from service.profile import ModelProfile
from service.settings import Settings
from tests.executor.engines import CountingEngine, NumberWriter, WordRenderer
from tests.no_home import NO_HOME

# At most 2 GB in all.
SWELLING = "{% for i in range(99999) %}{{ messages[0].content * 100 ~ i }}{% endfor %}"
NONSENSE = {
    "garbage": HEADER.pack(5) + b"\xc1\xc1\xc1\xc1\xc1",
    "another type": HEADER.pack(3) + b"\x91\x91\x01",
    "oversized": HEADER.pack(MAX_FRAME_BYTES + 1),
}
WEIGHT_BYTES = 1_000_000
PROFILE = ModelProfile(id="counting", fingerprint="1", context_length=1000)
ERRORS = {"raise": RuntimeError("injected"), "no room": NoRoom("other programs have the memory")}


def spec(factory: str, settings: Settings | None = None, **options: Any) -> EngineSpec:
    configured = settings or Settings(home=NO_HOME, shutdown_grace_seconds=5.0)
    return EngineSpec(factory=f"{__name__}:{factory}", profile=PROFILE, settings=configured, options=options)


def scripted(spec: EngineSpec) -> Executor:
    """Repeats the last user message. Some words of it do something first."""
    return ScriptedExecutor(obedient, profile=spec.profile, concurrency=spec.settings.max_concurrency)


async def obedient(request: GenerationRequest) -> AsyncIterator[str | Event]:
    async for item in echo(request):
        word = item.strip() if isinstance(item, str) else ""
        if word.startswith("end:"):
            end(word.removeprefix("end:"))
        if word == "too-long":
            raise ContextLengthExceeded(7, 5)
        yield item


class Unstartable(ScriptedExecutor):
    async def start(self) -> None:
        raise RuntimeError("can't start new thread")


def unstartable(spec: EngineSpec) -> Executor:
    return Unstartable(obedient, profile=spec.profile)


def counting(spec: EngineSpec) -> Executor:
    """Counts to `max_tokens`. It ends at the stage `at` in the way `how`: only the first process does, which makes the
    file `once`, and only at a request with `word` in its text. Stage `decoding` is after the second token, and once
    there is a file `seen`."""
    fault = Fault(spec.options)
    fault.strike("making")
    engine = FaultyEngine(fault, float(spec.options.get("step_seconds", 0)))

    def load(*_: Any) -> Runtime:
        time.sleep(spec.options.get("load_seconds", 0))
        while (gate := spec.options.get("load_after")) and not Path(gate).exists():
            time.sleep(0.01)
        fault.strike("loading")
        if fault.at == "idle":
            threading.Timer(0.05, fault.strike, ["idle"]).start()
        renderer = ConstrainingRenderer(FaultyRenderer(fault), FaultyCompiler(fault))
        return Runtime(
            engine=engine,
            open_writer=NumberWriter,
            shared=SharedRuntime(renderer=renderer, logits=100),
        )

    seconds = spec.options.get("render_seconds", 30.0)
    limits = JobLimits(seconds=seconds, max_bytes=256 * 2**20, engine_bytes_per_second=0)
    return MlxExecutor(Path("counting"), spec.profile, spec.settings, load=load, limits=limits)


def model(spec: EngineSpec) -> Executor:
    """Serves the folder of the spec, with the faults of `counting` except those of `rendering`."""
    fault = Fault(spec.options)

    def load(*arguments: Any) -> Runtime:
        runtime = load_runtime(*arguments)
        fault.strike("loading")
        if fault.at == "idle":
            threading.Timer(0.05, fault.strike, ["idle"]).start()
        return msgspec.structs.replace(runtime, engine=FaultyModel(runtime.engine, fault))

    return MlxExecutor(Path(spec.model_path), spec.profile, spec.settings, load=load)


def paced(spec: EngineSpec) -> Executor:
    """Takes turns with other engines of the same home. A step takes `read_seconds` or `step_seconds`, and adds a line
    with its begin and end to the file `steps`."""
    engine = PacedEngine(spec.options)

    def load(*_: Any) -> Runtime:
        return Runtime(
            engine=engine,
            open_writer=NumberWriter,
            shared=SharedRuntime(renderer=WordRenderer(), logits=100),
            slices=open_time_slices(spec.settings.home),
        )

    return MlxExecutor(Path("paced"), spec.profile, spec.settings, load=load)


class PacedEngine(CountingEngine):
    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self._options = options

    def step(self) -> list[Token]:
        began = time.monotonic()
        reads = any(self._unread[number] > 0 for number in self.held)
        time.sleep(self._options["read_seconds" if reads else "step_seconds"])
        tokens = super().step()
        with Path(self._options["steps"]).open("a") as steps:
            steps.write(f"{began} {time.monotonic()}\n")
        return tokens


class FaultyModel:
    """An `Engine` around another."""

    def __init__(self, engine: Engine, fault: "Fault") -> None:
        self._engine = engine
        self._fault = fault
        self._tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self) -> list[Token]:
        read = self._engine.prompt_tokens_read
        tokens = self._engine.step()
        self._tokens += len(tokens)
        if self._engine.prompt_tokens_read > read:
            self._fault.strike("reading")
        if self._tokens > 2:
            self._fault.strike("decoding")
        return tokens

    def close(self) -> None:
        self._fault.strike("closing")
        self._engine.close()


class Fault:
    def __init__(self, options: dict[str, Any]) -> None:
        self.at = options.get("at", "")
        self._how = options.get("how", "")
        self._once = options.get("once")
        self._word = options.get("word", "")
        self._seen = options.get("seen")

    def strike(self, stage: str, request: GenerationRequest | None = None) -> None:
        if request is not None and self._word and self._word not in request.messages[-1].content:
            return
        if stage == self.at and not (self._once and Path(self._once).exists()):
            while self._seen and not Path(self._seen).exists():
                time.sleep(0.01)
            if self._once:
                Path(self._once).touch()
            end(self._how)


class FaultyRenderer(WordRenderer):
    knows_tools = False
    tool_family = None

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self._fault = fault

    def render(self, request: GenerationRequest) -> Prompt:
        self._fault.strike("rendering", request)
        return Prompt([1] * super().count(request))

    def count(self, request: GenerationRequest) -> int:
        self._fault.strike("counting", request)
        return super().count(request)

    def thought(self, request: GenerationRequest, prompt: Prompt) -> None:
        return None


class FaultyCompiler(GrammarCompiler):
    def __init__(self, fault: Fault) -> None:
        super().__init__(None)
        self._fault = fault

    def spell(self, text: str) -> list[str | int]:
        return [text]

    def _compile(self, grammar: str) -> LLMatcher:
        self._fault.strike("compiling")
        return super()._compile(grammar)


class FaultyEngine(CountingEngine):
    """Its weights take `WEIGHT_BYTES`."""

    def __init__(self, fault: Fault, step_seconds: float) -> None:
        super().__init__()
        self._fault = fault
        self._step_seconds = step_seconds

    def step(self) -> list[Any]:
        time.sleep(self._step_seconds)
        for sequence in self.held.values():
            if self._unread[sequence.id] > 0:
                self._fault.strike("reading", sequence.request)
            if self._counters[sequence.id] >= 2:
                self._fault.strike("decoding", sequence.request)
        return super().step()

    def memory_bytes(self) -> int:
        return WEIGHT_BYTES + super().memory_bytes()

    def close(self) -> None:
        self._fault.strike("closing")
        super().close()


def end(how: str) -> None:
    """Ends this process, or brings it into a state that it cannot go on from."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    match how:
        case "exit":
            os._exit(3)
        case "sys.exit":
            sys.exit("the library gives up")
        case "raise" | "no room":
            raise ERRORS[how]
        case "spin":
            while True:
                pass
        case "swell":
            time.sleep(3.0)  # for the requests that come meanwhile
            held = b"".join(bytes(2**20) for _ in range(512))
            time.sleep(60)
            del held
        case "a swelling template":
            from transformers.utils.chat_template_utils import render_jinja_template  # slow to import

            render_jinja_template([[{"role": "user", "content": "a" * 200}]], chat_template=SWELLING)
        case "garbage" | "another type" | "oversized":
            send(NONSENSE[how])
        case "leave a fork":
            if os.fork() == 0:
                time.sleep(60)
            os._exit(3)
        case "half a frame":
            send(HEADER.pack(100) + b"\x91")
            os._exit(0)
        case _:
            os.kill(os.getpid(), signal.Signals[how])
            time.sleep(60)  # until the signal is delivered


def send(data: bytes) -> None:
    with socket.socket(fileno=os.dup(int(sys.argv[1]))) as connection:
        connection.sendall(data)
    time.sleep(60)
