"""This module imports neither MLX nor transformers: the MLX thread does, while the executor answers."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from service.errors import BadRequest, ContextLengthExceeded, GenerationTimeout, NotReady, ShuttingDown
from service.executor.answer import RunningAnswer, prompt_read
from service.executor.base import (
    RETRY_AFTER_SECONDS,
    Answer,
    AnswerFromEvents,
    ExecutorStatus,
    ModelState,
    refuse_when_full,
)
from service.executor.process.call_messages import EngineSpec
from service.executor.process.priority import give_way_to_the_server
from service.executor.prompt.preparation import JobLimits, Preparation, limits_for
from service.executor.runtime import Loader, Runtime, SharedRuntime, load_runtime
from service.executor.scheduling.messages import Prompt, Sequence
from service.executor.supervisor import Supervisor
from service.generation import GenerationRequest, SamplingParams
from service.profile import ModelProfile
from service.queries import Finding, ListPrefixes, PrefixesFound, Query
from service.settings import Settings
from service.tallies import CallTally, DraftTally, StateTally

# An answer is held back this long in case the engine refuses it: a refusal has its own HTTP status only before the
# stream begins. An answer that starts does not wait.
REFUSAL_SECONDS = 0.25

# An agent's parallel requests are rendered one after another, and begin together. The first one waits for the others
# for the longer of these times: seconds, and renderings like its own.
TOGETHER_SECONDS = 0.01
TOGETHER_RENDERINGS = 8

# The state is `degraded` after this share of the time limit for preparing a prompt.
SLOW_SHARE = 1 / 3

R = TypeVar("R")


class Peers(Protocol):
    def watch(self, on_loss: Callable[[str], None]) -> None:
        """Any thread may call `on_loss`, with the reason."""
        ...


def open_mlx_executor(spec: EngineSpec) -> "MlxExecutor":
    return MlxExecutor(Path(spec.model_path), spec.profile, spec.settings, load=_load_beside_the_server)


def _load_beside_the_server(path: Path, profile: ModelProfile, settings: Settings) -> Runtime:
    runtime = load_runtime(path, profile, settings)

    from service.executor.loading.device import read_device

    give_way_to_the_server(read_device().kind)
    return runtime


class MlxExecutor:
    """The `n` answers of a request are `n` sequences that share one read of the prompt. An `unhealthy` executor stays
    so; another process has to replace it."""

    def __init__(
        self,
        model_path: Path,
        profile: ModelProfile,
        settings: Settings,
        *,
        load: Loader = load_runtime,
        peers: Peers | None = None,
        together_seconds: float = TOGETHER_SECONDS,
        limits: JobLimits | None = None,
    ) -> None:
        self.profile = profile
        self._settings = settings
        self._peers = peers
        self._together_seconds = together_seconds
        self._limits = limits or limits_for(profile.context_length)
        self._supervisor = Supervisor(profile.id, lambda: load(model_path, profile, settings), settings)
        self._preparation: Preparation | None = None
        self._ids = itertools.count()
        self._arriving = 0  # sequences whose prompts are prepared
        self._asking = 0  # counts and queries
        self._rendering = 0
        self._all_rendered = asyncio.Event()
        self._closing = False

    def status(self) -> ExecutorStatus:
        supervisor = self._supervisor
        pulse = supervisor.pulse
        model = supervisor.model
        state, detail = self._judge()
        return ExecutorStatus(
            state=state,
            running=pulse.running,
            waiting=max(0, supervisor.in_flight - pulse.running) + self._arriving + self._asking,
            detail=detail,
            permanent=supervisor.permanent,
            no_room=supervisor.no_room,
            memory_bytes=pulse.memory_bytes,
            peak_bytes=pulse.peak_bytes,
            prefix_cache_bytes=pulse.prefix_cache_bytes,
            context_tokens=pulse.longest_tokens,
            max_concurrency=pulse.max_concurrency,
            engine_restarts=pulse.restarts,
            generated_tokens=pulse.generated_tokens,
            read_tokens=pulse.read_tokens,
            tool_calls=copy(model.tally) if model else CallTally(),
            drafts=copy(model.drafts) if model else DraftTally(),
            states=copy(model.states) if model else StateTally(),
            tuning=pulse.tuning,
        )

    async def start(self) -> None:
        if self._peers is not None:
            self._peers.watch(partial(_call_on, asyncio.get_running_loop(), self._lose))
        self._preparation = Preparation(self._lose, self._limits)
        self._supervisor.start()

    async def identify(self) -> None:
        """Its profile is complete."""

    async def submit(self, request: GenerationRequest) -> Answer:
        generated = request
        if request.max_tokens == 0:
            generated = msgspec.structs.replace(request, max_tokens=1, n=1, logprobs=None)
        refuse_when_full(self._supervisor.in_flight + self._arriving, self._settings)
        with self._arrival(generated.n):
            model = await self._ready()
            _check_logit_bias(request.sampling, model.logits)
            prompt = await self._render(model, request)
            self._refuse_when_closing()
            running = self._begin(generated, prompt, self._room_for(prompt))
        try:
            await running.begun(REFUSAL_SECONDS)
        except BaseException:
            await running.aclose()
            raise
        if generated is request:
            return running
        return AnswerFromEvents(running.prompt_tokens, prompt_read(running, request), source=running)

    async def count_tokens(self, request: GenerationRequest) -> int:
        with self._arrival(asking=1):
            model = await self._ready()
            return await self._prepare(lambda: model.renderer.count(request))

    async def ask(self, query: Query) -> Finding:
        with self._arrival(asking=1):
            model = await self._ready()
            if isinstance(query, ListPrefixes):
                return PrefixesFound(await self._supervisor.prefixes())
            return await self._prepare(lambda: model.answer_query(query))

    async def aclose(self) -> None:
        self._closing = True
        await self._supervisor.aclose()
        if self._preparation is not None:
            self._preparation.close()

    def _judge(self) -> tuple[ModelState, str]:
        state, detail = self._supervisor.state, self._supervisor.detail
        seconds = 0.0 if self._preparation is None else self._preparation.seconds
        if state == "healthy" and seconds > SLOW_SHARE * self._limits.seconds:
            return "degraded", f"a prompt has been in preparation for {seconds:.0f} s"
        return state, detail

    def _lose(self, reason: str) -> None:
        self._supervisor.fail(f"The model cannot go on: {reason}")

    # The way of a request, on the event loop

    @contextmanager
    def _arrival(self, sequences: int = 0, *, asking: int = 0) -> Iterator[None]:
        self._refuse_when_closing()
        self._arriving += sequences
        self._asking += asking
        try:
            yield
        finally:
            self._arriving -= sequences
            self._asking -= asking

    async def _ready(self) -> SharedRuntime:
        supervisor = self._supervisor
        try:
            async with asyncio.timeout(self._settings.queue_timeout_seconds):
                await supervisor.settled.wait()
        except TimeoutError:
            message = f"The model {self.profile.id} is still loading. Try again later."
            raise NotReady(message, retry_after=RETRY_AFTER_SECONDS) from None
        self._refuse_when_closing()
        if supervisor.model is None:
            raise NotReady(supervisor.detail)
        return supervisor.model

    async def _render(self, model: SharedRuntime, request: GenerationRequest) -> Prompt:
        started = time.monotonic()
        self._rendering += 1
        self._all_rendered.clear()
        try:
            prompt = await self._prepare(lambda: model.renderer.render(request))
        finally:
            self._rendering -= 1
            if not self._rendering:
                self._all_rendered.set()
        # Starting requests together costs each less than joining later.
        if not self._supervisor.in_flight:
            await self._gather(time.monotonic() - started)
        return prompt

    async def _gather(self, rendering_seconds: float) -> None:
        # In the next turn of the loop, those that waited begin as well, and those that have just arrived are rendered.
        # The engine may step between two turns.
        await asyncio.sleep(0)
        if not self._rendering:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(self._together_seconds, TOGETHER_RENDERINGS * rendering_seconds)):
                await self._all_rendered.wait()

    async def _prepare(self, job: Callable[[], R]) -> R:
        assert self._preparation is not None  # noqa: S101 - a model is only there after `start`
        return await self._preparation.run(job)

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise ShuttingDown()

    def _room_for(self, prompt: Prompt) -> int:
        """Returns the tokens that are left for an answer. Raises `ContextLengthExceeded`."""
        status = self.status()
        # Without any memory, a request waits for other programs.
        context_length = status.context_length(self.profile) if status.context_tokens else self.profile.context_length
        if len(prompt.tokens) >= context_length:
            raise ContextLengthExceeded(len(prompt.tokens), context_length)
        return context_length - len(prompt.tokens)

    def _begin(self, request: GenerationRequest, prompt: Prompt, room: int) -> RunningAnswer:
        loop = asyncio.get_running_loop()
        sequences = [
            Sequence(
                id=next(self._ids),
                choice=choice,
                request=request,
                prompt=prompt,
                sampling=_of_choice(request.sampling, choice),
                max_tokens=room if request.max_tokens is None else min(room, request.max_tokens),
                start_before=loop.time() + self._settings.queue_timeout_seconds,
            )
            for choice in range(request.n)
        ]
        answer = RunningAnswer(
            [sequence.id for sequence in sequences],
            len(prompt.tokens),
            abort=self._supervisor.abort,
        )
        seconds = self._settings.request_timeout_seconds
        answer.limit(seconds, GenerationTimeout(f"The answer was not finished within {seconds:g} seconds."))
        self._supervisor.begin(sequences, answer)
        return answer


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[[str], None], reason: str) -> None:
    with suppress(RuntimeError):  # the loop is closed and no request is left
        loop.call_soon_threadsafe(function, reason)


def _of_choice(sampling: SamplingParams, choice: int) -> SamplingParams:
    if sampling.seed is None or choice == 0:
        return sampling
    return msgspec.structs.replace(sampling, seed=sampling.seed + choice)


def _check_logit_bias(sampling: SamplingParams, logits: int) -> None:
    for token, _ in sampling.logit_bias:
        if not 0 <= token < logits:
            raise BadRequest(f"Expected a token id from 0 to {logits - 1}, got {token}.", param="logit_bias")
