"""`/v1/completions` and `/v1/embeddings`. Each prompt of a body is a request of its own."""

import asyncio
from collections.abc import Sequence

import msgspec

from service.dialects.openai_completions.request import AskedTexts
from service.dialects.prompts import AskedPrompts
from service.endpoints.generation import GenerationEndpoint, Submission, with_defaults
from service.endpoints.joined_answer import JoinedAnswer
from service.queries import Detokenize, TextFound
from service.response_cache.base import CachedAnswer
from service.response_cache.caching_executor import CachingExecutor


class PromptsEndpoint(GenerationEndpoint):
    async def _submit(self, submission: Submission) -> CachedAnswer:
        executor, request = submission.executor, submission.request
        prompts = submission.asked.dialect_state
        assert isinstance(prompts, AskedPrompts)  # noqa: S101  (from each dialect of this endpoint)
        if isinstance(prompts, AskedTexts):
            await self._find_echoes(executor, prompts)
        requests = [with_defaults(each, executor.profile, request.caller) for each in prompts.requests]
        submissions = [msgspec.structs.replace(submission, request=each) for each in requests]
        submitting = [asyncio.ensure_future(super(PromptsEndpoint, self)._submit(each)) for each in submissions]
        try:
            answers = await asyncio.gather(*submitting)
        except BaseException:
            await _give_up(submitting)
            raise
        joined = JoinedAnswer(answers, request.n)
        submission.record.outcome = joined.outcome
        return joined

    async def _find_echoes(self, executor: CachingExecutor, asked: AskedTexts) -> None:
        for place, tokens in asked.tokens_to_echo:
            found = await executor.ask(Detokenize(tokens))
            assert isinstance(found, TextFound)  # noqa: S101  (what the query finds)
            asked.echoes[place] = found.text


async def _give_up(submitting: Sequence["asyncio.Future[CachedAnswer]"]) -> None:
    for future in submitting:
        future.cancel()
    for result in await asyncio.gather(*submitting, return_exceptions=True):
        if not isinstance(result, BaseException):
            await result.aclose()
