"""The executor that runs a model with MLX: one thread loads it and runs it, for the life of the server.

This module imports neither MLX nor transformers: those load on their thread, while the server answers already.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

import msgspec

from service.errors import BadRequest, GenerationTimeout, NotReady, Overloaded, ShuttingDown
from service.executor.answer import RunningAnswer, prompt_read
from service.executor.base import Answer, ExecutorStatus, GeneratedAnswer
from service.executor.runtime import Loader, load_runtime
from service.executor.scheduling.messages import Prompt, Sequence
from service.executor.scheduling.scheduler import RETRY_AFTER_SECONDS
from service.executor.supervisor import Supervisor
from service.executor.worker import ServedModel
from service.generation import GenerationRequest, SamplingParams
from service.profile import ModelProfile
from service.settings import Settings
from service.tallies import CallTally, DraftTally

REFUSAL_SECONDS = 0.25
"""So long an answer is held back for the engine to refuse it, as for want of memory: a refusal has a status of its own
as long as no part of a stream has been sent. Nothing waits for it that has a place."""

TOGETHER_SECONDS = 0.01
"""Requests that an agent sends together are rendered within this time; a step of the engine takes several times it."""

P = ParamSpec("P")
R = TypeVar("R")


class Peers(Protocol):
    """Other processes without which the model does not work."""

    def watch(self, on_loss: Callable[[str], None]) -> None:
        """`on_loss` is called with the reason, by any thread, when one of them is gone."""
        ...


class MlxExecutor:
    """Serves the model folder `model_path`. Up to `max_concurrency` sequences run, `max_queue` wait.

    The `n` answers of one request are `n` sequences, whose prompt is read once.
    """

    def __init__(
        self,
        model_path: Path,
        profile: ModelProfile,
        settings: Settings,
        *,
        load: Loader = load_runtime,
        peers: Peers | None = None,
        together_seconds: float = TOGETHER_SECONDS,
    ) -> None:
        self.profile = profile
        self._settings = settings
        self._peers = peers
        self._together_seconds = together_seconds
        self._supervisor = Supervisor(profile.id, lambda: load(model_path, profile, settings), settings)
        self._prompts = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._ids = itertools.count()
        self._arriving = 0
        self._rendering = 0
        self._all_rendered = asyncio.Event()
        self._closing = False

    def status(self) -> ExecutorStatus:
        supervisor = self._supervisor
        pulse = supervisor.pulse
        model = supervisor.model
        return ExecutorStatus(
            state=supervisor.state,
            running=pulse.running,
            waiting=max(0, supervisor.in_flight - pulse.running) + self._arriving,
            detail=supervisor.detail,
            memory_bytes=pulse.memory_bytes,
            prefix_cache_bytes=pulse.prefix_cache_bytes,
            engine_restarts=pulse.restarts,
            generated_tokens=pulse.generated_tokens,
            read_tokens=pulse.read_tokens,
            tool_calls=copy(model.tally) if model else CallTally(),
            drafts=copy(model.drafts) if model else DraftTally(),
        )

    async def start(self) -> None:
        if self._peers is not None:
            self._peers.watch(partial(_call_on, asyncio.get_running_loop(), self._supervisor.fail))
        self._supervisor.start()

    async def submit(self, request: GenerationRequest) -> Answer:
        generated = request
        if request.max_tokens == 0:
            generated = msgspec.structs.replace(request, max_tokens=1, n=1, logprobs=None)
        with self._reserve(generated.n):
            model = await self._ready()
            _check_logit_bias(request.sampling, model.logits)
            prompt = await self._render(model, request)
            self._refuse_when_closing()
            running = self._begin(generated, prompt)
        try:
            await running.begun(REFUSAL_SECONDS)
        except BaseException:
            await running.aclose()
            raise
        if generated is request:
            return running
        return GeneratedAnswer(running.prompt_tokens, prompt_read(running, request), source=running)

    async def count_tokens(self, request: GenerationRequest) -> int:
        model = await self._ready()
        return await self._off_loop(model.renderer.count, request)

    async def aclose(self) -> None:
        self._closing = True
        await self._supervisor.aclose()
        self._prompts.shutdown(wait=False, cancel_futures=True)

    # The request's way in, on the event loop

    @contextmanager
    def _reserve(self, sequences: int) -> Iterator[None]:
        """Holds places in the queue while a request is being prepared. Who is refused is refused at once."""
        self._refuse_when_closing()
        places = self._settings.max_concurrency + self._settings.max_queue
        if self._supervisor.in_flight + self._arriving >= places:
            raise Overloaded(
                f"The queue of {self._settings.max_queue} is full. Try again later, or raise maxQueue.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        self._arriving += sequences
        try:
            yield
        finally:
            self._arriving -= sequences

    async def _ready(self) -> ServedModel:
        """Waits while the model loads."""
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
        if supervisor.state == "unhealthy":  # it may go on yet
            raise NotReady(supervisor.detail, retry_after=RETRY_AFTER_SECONDS)
        return supervisor.model

    async def _render(self, model: ServedModel, request: GenerationRequest) -> Prompt:
        """Where nothing runs, waits a moment for others that are being rendered: to begin with one of them and have the
        rest join costs all of them more."""
        self._rendering += 1
        self._all_rendered.clear()
        try:
            prompt = await self._off_loop(model.renderer.render, request)
        finally:
            self._rendering -= 1
            if not self._rendering:
                self._all_rendered.set()
        if self._rendering and not self._supervisor.in_flight:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._together_seconds):
                    await self._all_rendered.wait()
        return prompt

    async def _off_loop(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._prompts, lambda: function(*args, **kwargs))

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise ShuttingDown()

    def _begin(self, request: GenerationRequest, prompt: Prompt) -> RunningAnswer:
        loop = asyncio.get_running_loop()
        room = self.profile.context_length - len(prompt.tokens)
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
    with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
        loop.call_soon_threadsafe(function, reason)


def _of_choice(sampling: SamplingParams, choice: int) -> SamplingParams:
    """Each choice draws its own numbers."""
    if sampling.seed is None or choice == 0:
        return sampling
    return msgspec.structs.replace(sampling, seed=sampling.seed + choice)


def _check_logit_bias(sampling: SamplingParams, logits: int) -> None:
    for token, _ in sampling.logit_bias:
        if not 0 <= token < logits:
            raise BadRequest(f"Expected a token id from 0 to {logits - 1}, got {token}.", param="logit_bias")
