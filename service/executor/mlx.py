"""The executor that runs a model with MLX: one thread loads it and runs it, for the life of the server.

This module imports neither MLX nor transformers: those load on their thread, while the server answers already.
"""

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

import msgspec

from service.errors import (
    BadRequest,
    EngineFailed,
    GenerationTimeout,
    NotReady,
    Overloaded,
    ServiceError,
    ShuttingDown,
)
from service.executor.answer import RunningAnswer
from service.executor.base import (
    NO_DIRECTIVES,
    Answer,
    CacheDirectives,
    ExecutorStatus,
    ModelProfile,
    StoredAnswer,
)
from service.executor.messages import Abort, Delivery, Message, Progress, Prompt, Sequence, Shutdown, Submit
from service.executor.runtime import Loader, Runtime, load_runtime, release_thread
from service.executor.scheduler import RETRY_AFTER_SECONDS, Scheduler
from service.generation import Choice, Completion, GenerationRequest, SamplingParams, Usage
from service.settings import Settings

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class MlxExecutor:
    """Serves the model folder `model_path`. Up to `max_concurrency` sequences run, `max_queue` wait.

    The `n` answers of one request are `n` sequences: each reads the prompt for itself.
    """

    def __init__(
        self, model_path: Path, profile: ModelProfile, settings: Settings, *, load: Loader = load_runtime
    ) -> None:
        self.profile = profile
        self._path = model_path
        self._settings = settings
        self._load = load
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._prompts = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._ids = itertools.count()
        self._answers: dict[int, RunningAnswer] = {}
        self._arriving = 0
        self._settled = asyncio.Event()
        self._runtime: Runtime | None = None
        self._scheduler: Scheduler | None = None
        self._failure = ""
        self._closing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def status(self) -> ExecutorStatus:
        if self._failure:
            return ExecutorStatus(state="failed", detail=self._failure)
        scheduler, runtime = self._scheduler, self._runtime
        if scheduler is None or runtime is None:
            return ExecutorStatus(state="loading", waiting=self._arriving, detail=f"loading {self._path.name}")
        running = scheduler.running
        waiting = max(0, len(self._answers) - running)
        return ExecutorStatus(
            state="ready",
            running=running,
            waiting=waiting,
            detail=runtime.device,
            engine_restarts=scheduler.restarts,
        )

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="mlx", daemon=True)
        self._thread.start()

    async def submit(self, request: GenerationRequest, directives: CacheDirectives = NO_DIRECTIVES) -> Answer:
        with self._reserve(request.n):
            runtime = await self._ready()
            _check_logit_bias(request.sampling, runtime.logits)
            prompt = await self._off_loop(runtime.renderer.render, request)
            self._refuse_when_closing()
            if request.max_tokens == 0:
                return StoredAnswer(_empty_completion(request, len(prompt.tokens)), "bypass")
            return self._begin(request, prompt)

    async def count_tokens(self, request: GenerationRequest) -> int:
        runtime = await self._ready()
        return await self._off_loop(runtime.renderer.count, request)

    async def aclose(self) -> None:
        """A thread that does not end within the grace period is left behind: it cannot be interrupted."""
        self._closing = True
        self._runtime = self._scheduler = None  # so that the model is freed on the thread that ran it
        self._inbox.put(Shutdown())
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, self._settings.shutdown_grace_seconds)
            if self._thread.is_alive():
                log.warning("The MLX thread is still busy and is left behind")
        self._settled.set()
        self._fail_answers(lambda: ShuttingDown("The server is shutting down."))
        self._prompts.shutdown(wait=False, cancel_futures=True)

    # The request's way in, on the event loop

    @contextmanager
    def _reserve(self, sequences: int) -> Iterator[None]:
        """Holds places in the queue while a request is being prepared. Who is refused is refused at once."""
        self._refuse_when_closing()
        places = self._settings.max_concurrency + self._settings.max_queue
        if len(self._answers) + self._arriving >= places:
            raise Overloaded(
                f"{self._settings.max_queue} requests wait already. Try again later, or raise maxQueue.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        self._arriving += sequences
        try:
            yield
        finally:
            self._arriving -= sequences

    async def _ready(self) -> Runtime:
        """Waits while the model loads."""
        try:
            async with asyncio.timeout(self._settings.queue_timeout_seconds):
                await self._settled.wait()
        except TimeoutError:
            message = f"The model {self.profile.id} is still loading. Try again later."
            raise NotReady(message, retry_after=RETRY_AFTER_SECONDS) from None
        self._refuse_when_closing()
        if self._failure or self._runtime is None:
            raise NotReady(self._failure)
        return self._runtime

    async def _off_loop(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._prompts, lambda: function(*args, **kwargs))

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise ShuttingDown("The server is shutting down.")

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
            with_logprobs=request.logprobs is not None,
            abort=self._abort,
        )
        seconds = self._settings.request_timeout_seconds
        answer.fail_after(seconds, GenerationTimeout(f"The answer was not finished within {seconds:g} seconds."))
        for sequence in sequences:
            self._answers[sequence.id] = answer
            self._inbox.put(Submit(sequence))
        return answer

    def _abort(self, sequences: list[int]) -> None:
        for sequence in sequences:
            self._inbox.put(Abort(sequence))

    # The answer's way back, on the event loop

    def _receive(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if isinstance(delivery, Progress):
                answer = self._answers.get(delivery.sequence)
            else:
                answer = self._answers.pop(delivery.sequence, None)
            if answer is not None:
                answer.take(delivery)

    def _loaded(self, runtime: Runtime, scheduler: Scheduler) -> None:
        if not self._closing:
            self._runtime, self._scheduler = runtime, scheduler
            self._settled.set()

    def _failed(self, detail: str) -> None:
        self._failure = detail
        self._runtime = self._scheduler = None
        self._settled.set()
        self._fail_answers(lambda: EngineFailed(detail))

    def _fail_answers(self, error: Callable[[], ServiceError]) -> None:
        answers, self._answers = set(self._answers.values()), {}
        for answer in answers:
            answer.fail(error())

    # The thread that owns MLX

    def _run(self) -> None:
        try:
            runtime = self._load_runtime()
            if runtime is not None:
                self._run_scheduler(runtime)
        except BaseException as exc:
            log.critical("The MLX thread has ended", exc_info=exc)
            self._post(self._failed, f"The thread that runs the model has ended: {exc!r}")
        finally:
            release_thread()

    def _load_runtime(self) -> Runtime | None:
        try:
            return self._load(self._path, self.profile, self._settings)
        except Exception as exc:
            log.exception("The model %s could not be loaded", self._path)
            self._post(self._failed, f"The model {self.profile.id} could not be loaded: {exc}")
            return None

    def _run_scheduler(self, runtime: Runtime) -> None:
        scheduler = Scheduler(
            runtime.engine,
            self._inbox,
            lambda deliveries: self._post(self._receive, deliveries),
            runtime.open_writer,
            max_concurrency=self._settings.max_concurrency,
        )
        self._post(self._loaded, runtime, scheduler)
        scheduler.run()
        runtime.engine.close()

    def _post(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Calls a function on the event loop. Where the loop is gone, nobody is left to work for."""
        loop = self._loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(lambda: function(*args, **kwargs))
        except RuntimeError:
            self._inbox.put(Shutdown())


def _of_choice(sampling: SamplingParams, choice: int) -> SamplingParams:
    """Each choice draws its own numbers."""
    if sampling.seed is None or choice == 0:
        return sampling
    return msgspec.structs.replace(sampling, seed=sampling.seed + choice)


def _check_logit_bias(sampling: SamplingParams, logits: int) -> None:
    for token, _ in sampling.logit_bias:
        if not 0 <= token < logits:
            raise BadRequest(f"Expected a token id from 0 to {logits - 1}, got {token}.", param="logit_bias")


def _empty_completion(request: GenerationRequest, prompt_tokens: int) -> Completion:
    logprobs = None if request.logprobs is None else ()
    choice = Choice(parts=(), finish_reason="length", logprobs=logprobs)
    return Completion(choices=(choice,) * request.n, usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=0))
