import asyncio
import time

import msgspec
from starlette.types import Receive, Scope, Send

from service.dialects.base import ClientRequest, Dialect, Reply, StreamEncoder
from service.dialects.sse import CONTENT_TYPE
from service.endpoints.context import ServiceContext
from service.errors import ServiceError, UnsupportedValue
from service.generation import Completion, GenerationRequest
from service.http.body import check_content
from service.http.cache_headers import cache_headers, read_cache_control
from service.http.client_watch import ClientGone, ClientWatch
from service.http.request_headers import read_retry
from service.http.streaming import StreamWriter, replay_stream
from service.profile import ModelProfile
from service.response_cache.base import CachedAnswer, CacheDirectives
from service.response_cache.caching_executor import CachingExecutor
from service.telemetry.omissions import OmissionLog
from service.telemetry.request_log import REQUEST_ID_PREFIX, RequestRecord


class Submission(msgspec.Struct, frozen=True):
    """`request` is that of `asked` with the model's defaults. An endpoint may submit others in its place."""

    executor: CachingExecutor
    asked: ClientRequest
    request: GenerationRequest
    directives: CacheDirectives
    record: RequestRecord


class GenerationEndpoint:
    """The `POST` of one dialect, streamed or not. Errors rise to the exception handlers."""

    def __init__(self, context: ServiceContext, dialect: Dialect) -> None:
        self._context = context
        self._dialect = dialect
        self._omissions = OmissionLog(dialect.name)
        self._request_id_header = dialect.request_id_header.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = RequestRecord(
            request_id=scope["state"]["request_id"], dialect=self._dialect.name, started=time.perf_counter()
        )
        scope["state"]["record"] = record
        try:
            await self._handle(scope, receive, send, record)
        except ClientGone:
            record.error_code = "client_gone"
        except asyncio.CancelledError:
            record.error_code = "cancelled"
            raise
        except ServiceError as error:
            record.status, record.error_code = self._dialect.error_status(error), error.code
            raise
        except Exception:
            record.status, record.error_code = 500, "internal_error"
            raise
        finally:
            record.explain_reread()
            record.total_seconds = time.perf_counter() - record.started
            self._context.observe(record)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        headers, caller = scope["state"]["headers"], scope["state"]["caller"]
        check_content(headers)
        record.retry = read_retry(headers)
        directives = read_cache_control(headers)
        body = await self._context.bodies.read(receive, headers)
        record.request_bytes = len(body)

        dialect = await self._dialect_for(caller, body)
        registry = self._context.registry
        asked = dialect.decode(body, registry.find_for(body).profile.sampling)
        if asked.unknown_fields or asked.absent_tools:
            self._omissions.see(asked.unknown_fields, asked.absent_tools)
        if asked.unread_media:
            self._count_media(asked.unread_media, record)
        executor = registry.find(asked.model)
        request = with_defaults(asked.request, executor.profile, caller)
        record.stream, record.model = asked.stream, executor.profile.id

        submission = Submission(executor, asked, request, directives, record)
        watch = ClientWatch(receive)
        answer = await watch.run(self._submit(submission))
        try:
            if asked.stream:
                encoder = dialect.encode_stream(self._reply(submission, answer))
                await self._stream(submission, answer, encoder, watch, send)
            else:
                completion = await self._completion(answer, watch, record)
                body = dialect.encode(completion, self._reply(submission, answer))
                await _send_whole(send, self._headers(answer, b"application/json", record), body)
        finally:
            await answer.aclose()

    def _count_media(self, paths: tuple[str, ...], record: RequestRecord) -> None:
        if self._context.settings.refuse_media:
            raise UnsupportedValue.at(paths[0], "this model reads text only.")
        record.unread_media = len(paths)

    async def _dialect_for(self, caller: str, body: bytes) -> Dialect:
        return self._dialect

    async def _submit(self, submission: Submission) -> CachedAnswer:
        record, request = submission.record, submission.request
        patience = self._patience(submission.asked)
        answer = await submission.executor.submit(request, submission.directives, patience=patience)
        # The response cache has just counted it. Nothing is awaited in between, so the two always agree.
        record.outcome, record.status = answer.outcome, 200
        if answer.outcome in ("miss", "bypass") and request.messages:
            record.comparison = self._context.prompts.add(request)
        self._context.activity.accept(record, answer)
        return answer

    def _patience(self, asked: ClientRequest) -> float | None:
        """How long a stream stays closed while its request is not accepted."""
        # Once it is open, its client gets keep-alives, and a refusal is an error in the stream.
        return self._context.settings.keep_alive_interval_seconds if asked.stream else None

    async def _completion(self, answer: CachedAnswer, watch: ClientWatch, record: RequestRecord) -> Completion:
        if answer.outcome == "hit":
            completion = await answer.completion()
        else:
            completion = await watch.run(answer.completion())
        record.see_completion(completion)
        return completion

    async def _stream(
        self, submission: Submission, answer: CachedAnswer, encoder: StreamEncoder, watch: ClientWatch, send: Send
    ) -> None:
        executor, record = submission.executor, submission.record
        headers = self._headers(answer, CONTENT_TYPE.encode(), record)
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        if answer.outcome == "hit":
            await _send_whole(send, headers, await replay_stream(answer, encoder, record.see))
            return
        writer = StreamWriter(
            send,
            encoder,
            interval=self._context.settings.keep_alive_interval_seconds,
            alive=lambda: executor.status().makes_progress,
            observe=record.see,
        )
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        error = await watch.run(writer.write(answer))
        if error is not None:
            record.error_code = error.code

    def _reply(self, submission: Submission, answer: CachedAnswer) -> Reply:
        asked, profile = submission.asked, submission.executor.profile
        return Reply(
            id=submission.record.request_id.removeprefix(REQUEST_ID_PREFIX),
            model=asked.model or profile.id,
            created=int(time.time()),
            include_usage=asked.include_usage,
            prompt_tokens=answer.prompt_tokens,
            fingerprint=profile.fingerprint,
            dialect_state=asked.dialect_state,
        )

    def _headers(self, answer: CachedAnswer, content_type: bytes, record: RequestRecord) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", content_type),
            *cache_headers(answer),
            (self._request_id_header, record.request_id.encode()),
        ]


def with_defaults(request: GenerationRequest, profile: ModelProfile, caller: str) -> GenerationRequest:
    thinking = profile.thinking if request.thinking == "default" else request.thinking
    budget = None
    if profile.thinks and thinking != "off":
        effort = request.template_arguments.get("reasoning_effort")
        of_effort = profile.thinking_budgets.get(effort) if isinstance(effort, str) else None
        budget = request.thinking_budget or of_effort
    raw = request.raw_prompt
    return msgspec.structs.replace(
        request,
        thinking=thinking,
        thinking_budget=budget,
        # Requests that a setting cannot affect keep their stored answers when it changes.
        end_loops=profile.end_loops and not (raw is not None and raw.embeds),
        answer_after_reasoning=profile.answer_after_reasoning or raw is not None,
        caller=caller,
    )


async def _send_whole(send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
