"""`CachingExecutor`: what is a hit, what is stored, and what the client's directives do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from cache_backends import open_backend
from cache_backends.base import Found
from cache_backends.memory import MemoryBackend
from service.errors import ContextLengthExceeded, NotCached, ServiceError
from service.events import CompletionBuilder, Event, TextDelta
from service.executor.scripted import ScriptedExecutor
from service.generation import Completion, GenerationRequest, Message, SamplingParams, Tool, ToolCall, ToolChoice
from service.queries import Tokenize, TokensFound
from service.response_cache.base import NO_DIRECTIVES, CachedAnswer, CacheDirectives, CacheOutcome
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.key import RequestKeys
from tests.patience import PATIENCE_SECONDS
from tests.response_cache.answers import Numbered, ask, settings

NO_CACHE = CacheDirectives(no_cache=True)
NO_STORE = CacheDirectives(no_store=True)
ONLY_IF_CACHED = CacheDirectives(only_if_cached=True)


def numbered(**changes: object) -> CachingExecutor:
    return CachingExecutor(ScriptedExecutor(Numbered().script), MemoryBackend(), settings(**changes))


async def outcome_and_text(
    executor: CachingExecutor, directives: CacheDirectives = NO_DIRECTIVES, request: GenerationRequest | None = None
) -> tuple[CacheOutcome, str]:
    answer = await executor.submit(request or ask(), directives)
    return answer.outcome, (await answer.completion()).choices[0].text


async def test_the_same_again_is_a_hit() -> None:
    executor = numbered()
    assert await outcome_and_text(executor) == ("miss", "answer 1")
    assert await outcome_and_text(executor) == ("hit", "answer 1")
    assert await outcome_and_text(executor, request=ask("else")) == ("miss", "answer 2")
    statistics = await executor.statistics()
    assert msgspec.to_builtins(statistics) == {
        "hits": 1,
        "misses": 2,
        "total_requests": 3,
        "hit_rate": "33.3%",
        "cached_items": 2,
        "collapsed": 0,
        "bypassed": 0,
        "stored": 2,
        "shed": 0,
        "store_failures": 0,
    }
    listed = (await executor.upkeep.list(9)).answers
    assert sorted(answer.hits for answer in listed) == [0, 1]
    await executor.aclose()


@pytest.mark.parametrize(
    ("request_", "directives", "error"),
    [
        (ask("word " * 200_000), NO_DIRECTIVES, ContextLengthExceeded),
        (ask("word " * 200_000), NO_CACHE, ContextLengthExceeded),
        (ask(), ONLY_IF_CACHED, NotCached),
        (ask(), msgspec.structs.replace(NO_CACHE, only_if_cached=True), NotCached),
        (ask(), msgspec.structs.replace(NO_STORE, only_if_cached=True), NotCached),
    ],
    ids=["too long", "too long, no-cache", "only-if-cached", "only-if-cached, no-cache", "only-if-cached, no-store"],
)
async def test_what_is_refused_is_neither_hit_nor_miss(
    request_: GenerationRequest, directives: CacheDirectives, error: type[ServiceError]
) -> None:
    executor = numbered()
    with pytest.raises(error):
        await executor.submit(request_, directives)
    assert ((await executor.statistics()).total_requests, executor.counters.bypassed) == (0, 0)
    await executor.aclose()


async def test_two_hits_are_equal_and_have_the_original_usage() -> None:
    executor = numbered()
    original = await (await executor.submit(ask(logprobs=2))).completion()
    hits = [await executor.submit(ask(logprobs=2)) for _ in range(2)]
    assert [await hit.completion() for hit in hits] == [original] * 2
    assert hits[0].prompt_tokens == original.usage.prompt_tokens
    assert original.choices[0].logprobs
    await executor.aclose()


async def test_a_streamed_hit_is_the_answer_that_was_stored() -> None:
    executor = numbered()
    streamed = [event async for event in (await executor.submit(ask(logprobs=1))).events()]
    replayed = [event async for event in (await executor.submit(ask(logprobs=1))).events()]
    completions = []
    for events in (streamed, replayed):
        builder = CompletionBuilder()
        for event in events:
            builder.feed(event)
        completions.append(builder.build())
    assert completions[0] == completions[1]
    await executor.aclose()


async def test_what_is_normalised_away_is_a_hit_and_never_reaches_the_model() -> None:
    def conversation(call_id: str) -> GenerationRequest:
        call = ToolCall(call_id, "f", "{}")
        return GenerationRequest(
            messages=(
                Message(role="assistant", tool_calls=(call,)),
                Message(role="tool", content="x", tool_call_id=call_id),
            )
        )

    inner = ScriptedExecutor(Numbered().script)
    executor = CachingExecutor(inner, MemoryBackend(), settings())
    assert (await outcome_and_text(executor, request=conversation("toolu_1")))[0] == "miss"
    assert (await outcome_and_text(executor, request=conversation("toolu_2")))[0] == "hit"
    assert inner.submitted[0].messages[0].tool_calls[0].id != "toolu_1"
    await executor.aclose()


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_same_right_after_the_end_is_a_hit_however_slow_the_store(streamed: bool) -> None:
    gate = asyncio.Event()

    class SlowToWrite(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            await gate.wait()
            await super().set(key, value, ttl=ttl)

    executor = CachingExecutor(ScriptedExecutor(Numbered().script), SlowToWrite(), settings())
    first = await executor.submit(ask())
    if streamed:
        async for _ in first.events():
            pass
    else:
        await first.completion()
    assert not first.stored
    assert await outcome_and_text(executor) == ("hit", "answer 1")
    gate.set()
    await executor.aclose()


async def test_no_cache_generates_anew_and_stores() -> None:
    executor = numbered()
    await outcome_and_text(executor)
    answer = await executor.submit(ask(), NO_CACHE)
    assert answer.outcome == "bypass"
    assert (await answer.completion()).choices[0].text == "answer 2"
    assert answer.stored
    assert await outcome_and_text(executor) == ("hit", "answer 2")
    assert (await executor.statistics()).total_requests == 2
    await executor.aclose()


async def test_no_store_neither_reads_nor_writes_nor_joins() -> None:
    scripted = Numbered()
    scripted.gate.clear()
    executor = CachingExecutor(ScriptedExecutor(scripted.script), MemoryBackend(), settings())
    running = await executor.submit(ask())
    aside = await executor.submit(ask(), NO_STORE)
    assert aside.outcome == "bypass"
    scripted.gate.set()
    assert {(await running.completion()).choices[0].text, (await aside.completion()).choices[0].text} == {
        "answer 1",
        "answer 2",
    }
    assert not aside.stored
    assert await outcome_and_text(executor, NO_STORE, ask("else")) == ("bypass", "answer 3")
    assert await outcome_and_text(executor, request=ask("else")) == ("miss", "answer 4")
    assert (await executor.statistics()).total_requests == 2
    await executor.aclose()


async def test_the_engine_sees_that_nothing_may_be_stored() -> None:
    seen = []

    async def script(request: GenerationRequest) -> AsyncIterator[str]:
        seen.append(request.no_store)
        yield "answer"

    executor = CachingExecutor(ScriptedExecutor(script), MemoryBackend(), settings())
    for directives in (NO_STORE, NO_CACHE):
        await (await executor.submit(ask(), directives)).completion()
    assert seen == [True, False]
    await executor.aclose()


async def test_who_wants_a_new_answer_takes_nobodys_place_in_the_one_in_flight() -> None:
    scripted = Numbered()
    scripted.gate.clear()
    executor = CachingExecutor(ScriptedExecutor(scripted.script), MemoryBackend(), settings())
    first = await executor.submit(ask())
    anew = await executor.submit(ask(), NO_CACHE)
    second = await executor.submit(ask())
    await anew.aclose()
    third = await executor.submit(ask())
    assert [answer.outcome for answer in (first, anew, second, third)] == ["miss", "bypass", "collapsed", "collapsed"]
    scripted.gate.set()
    assert {(await answer.completion()).choices[0].text for answer in (first, second, third)} == {"answer 1"}
    await executor.aclose()


async def test_only_a_hit_has_an_age() -> None:
    executor = numbered()
    first = await executor.submit(ask())
    await first.completion()
    hit = await executor.submit(ask())
    assert first.age is None
    assert 0 <= (hit.age or 0) < 60
    await executor.aclose()


class Records:
    """A recorder that keeps what it is given."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.answers: list[str] = []
        self.counts: list[int] = []
        self.closed = False

    def record_answer(self, key: str, completion: Completion) -> None:
        self.keys.append(key)
        self.answers.append(completion.choices[0].text)

    def record_count(self, key: str, prompt_tokens: int) -> None:
        self.keys.append(key)
        self.counts.append(prompt_tokens)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("policy", ["all", "off"])
async def test_every_answer_is_recorded_unless_its_request_forbids_to_store_it(policy: str) -> None:
    records = Records()
    inner = ScriptedExecutor(Numbered().script)
    executor = CachingExecutor(inner, MemoryBackend(), settings(cache_policy=policy), recorder=records)
    for directives in (NO_STORE, NO_CACHE, NO_DIRECTIVES, NO_STORE):
        await outcome_and_text(executor, directives)
    assert records.answers == ["answer 2", "answer 2" if policy == "all" else "answer 3"]
    await executor.count_tokens(ask())
    assert records.counts == [3]
    assert records.keys == [RequestKeys().key(executor.profile.fingerprint, ask())] * 3
    await executor.aclose()
    assert records.closed


@pytest.mark.parametrize(("later", "recorded"), [("first", [3]), ("second", [])])
async def test_a_count_is_recorded_under_the_key_of_the_files_that_counted(later: str, recorded: list[int]) -> None:
    class Identified(ScriptedExecutor):
        async def identify(self) -> None:
            self.profile = msgspec.structs.replace(self.profile, fingerprint="first")

        async def count_tokens(self, request: GenerationRequest) -> int:
            self.profile = msgspec.structs.replace(self.profile, fingerprint=later)
            return await super().count_tokens(request)

    records = Records()
    unknown = msgspec.structs.replace(ScriptedExecutor().profile, fingerprint="")
    executor = CachingExecutor(Identified(profile=unknown), MemoryBackend(), settings(), recorder=records)
    assert await executor.count_tokens(ask()) == 3
    assert records.counts == recorded
    assert records.keys == [RequestKeys().key("first", ask())] * len(recorded)
    await executor.aclose()


async def test_a_hit_has_its_age() -> None:
    executor = numbered()
    await outcome_and_text(executor)
    hit = await executor.submit(ask())
    assert hit.age is not None
    assert 0 <= hit.age < PATIENCE_SECONDS
    await executor.aclose()


async def test_files_that_change_during_the_lookup_give_an_answer_that_is_not_stored() -> None:
    class Changing(MemoryBackend):
        async def get(self, key: str) -> Found | None:
            inner.profile = msgspec.structs.replace(inner.profile, fingerprint="new")
            return await super().get(key)

    inner = ScriptedExecutor(Numbered().script)
    executor = CachingExecutor(inner, Changing(), settings())
    assert await outcome_and_text(executor) == ("miss", "answer 1")
    assert (await executor.upkeep.list(9)).answers == []
    assert (await executor.statistics()).stored == 0
    await executor.aclose()


async def test_an_answer_that_ends_during_the_lookup_is_not_missed() -> None:
    looked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryBackend):
        async def get(self, key: str) -> Found | None:
            found = await super().get(key)
            if running:
                looked.set()
                await go_on.wait()
            return found

    scripted, running = Numbered(), list[CachedAnswer]()
    scripted.gate.clear()
    executor = CachingExecutor(ScriptedExecutor(scripted.script), Slow(), settings())
    running.append(await executor.submit(ask()))
    second = asyncio.create_task(executor.submit(ask()))
    await looked.wait()
    scripted.gate.set()
    await running[0].completion()
    go_on.set()
    answer = await second
    assert (answer.outcome, (await answer.completion()).choices[0].text) == ("collapsed", "answer 1")
    await executor.aclose()


async def test_only_if_cached_never_generates() -> None:
    executor = numbered()
    with pytest.raises(NotCached) as refused:
        await executor.submit(ask(), ONLY_IF_CACHED)
    assert refused.value.status == 504
    await outcome_and_text(executor)
    assert await outcome_and_text(executor, ONLY_IF_CACHED) == ("hit", "answer 1")
    await executor.aclose()


async def test_only_if_cached_may_join() -> None:
    scripted = Numbered()
    scripted.gate.clear()
    executor = CachingExecutor(ScriptedExecutor(scripted.script), MemoryBackend(), settings())
    running = await executor.submit(ask())
    joined = await executor.submit(ask(), ONLY_IF_CACHED)
    assert joined.outcome == "collapsed"
    scripted.gate.set()
    assert await joined.completion() == await running.completion()
    await executor.aclose()


@pytest.mark.parametrize("directives", [NO_STORE, NO_CACHE], ids=["no-store", "no-cache"])
async def test_only_if_cached_without_a_lookup_has_no_answer(directives: CacheDirectives) -> None:
    executor = numbered()
    await outcome_and_text(executor)
    with pytest.raises(NotCached):
        await executor.submit(ask(), msgspec.structs.replace(directives, only_if_cached=True))
    await executor.aclose()


async def test_max_age_takes_only_what_is_young_enough() -> None:
    executor = numbered()
    await outcome_and_text(executor)
    assert await outcome_and_text(executor, CacheDirectives(max_age=3600)) == ("hit", "answer 1")
    assert await outcome_and_text(executor, CacheDirectives(max_age=0)) == ("miss", "answer 2")
    assert await outcome_and_text(executor) == ("hit", "answer 2")
    await executor.aclose()


@pytest.mark.parametrize(
    ("policy", "sampling", "outcomes"),
    [
        ("all", SamplingParams(temperature=1.0), ["miss", "hit"]),
        ("deterministic", SamplingParams(temperature=1.0), ["bypass", "bypass"]),
        ("deterministic", SamplingParams(temperature=0.0), ["miss", "hit"]),
        ("off", SamplingParams(temperature=0.0), ["bypass", "bypass"]),
    ],
)
async def test_the_policy(policy: str, sampling: SamplingParams, outcomes: list[str]) -> None:
    executor = numbered(cache_policy=policy)
    request = ask(sampling=sampling)
    assert [(await outcome_and_text(executor, request=request))[0] for _ in range(2)] == outcomes
    statistics = await executor.statistics()
    assert (statistics.hits, statistics.misses) == (outcomes.count("hit"), outcomes.count("miss"))
    assert statistics.cached_items == outcomes.count("miss")
    await executor.aclose()


async def nothing(request: GenerationRequest) -> AsyncIterator[str | Event]:
    if request.n < 0:
        yield ""


async def broken_json(request: GenerationRequest) -> AsyncIterator[str | Event]:
    yield TextDelta(0, "{")


@pytest.mark.parametrize(
    ("script", "request_"),
    [
        (nothing, ask()),
        (Numbered().script, ask(max_tokens=0)),
        (broken_json, ask(response_format={"kind": "json_object"})),
    ],
    ids=["empty", "max_tokens 0", "no JSON where JSON was asked"],
)
async def test_what_is_not_worth_storing_is_not(
    script: Callable[[GenerationRequest], AsyncIterator[str | Event]], request_: GenerationRequest
) -> None:
    executor = CachingExecutor(ScriptedExecutor(script), MemoryBackend(), settings())
    for _ in range(2):
        answer = await executor.submit(request_)
        await answer.completion()
        assert (answer.outcome, answer.stored) == ("miss", False)
    await executor.aclose()


async def test_tool_calls_are_stored_with_their_ids() -> None:
    executor = CachingExecutor(ScriptedExecutor(), MemoryBackend(), settings())
    request = ask(tools=(Tool(name="f"),), tool_choice=ToolChoice("required"))
    answers = [await (await executor.submit(request)).completion() for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0].choices[0].finish_reason == "tool_calls"
    await executor.aclose()


async def test_another_model_shares_nothing() -> None:
    backend = MemoryBackend()
    for fingerprint in ("a", "b"):
        profile = msgspec.structs.replace(ScriptedExecutor().profile, fingerprint=fingerprint)
        executor = CachingExecutor(ScriptedExecutor(profile=profile), backend, settings())
        assert (await outcome_and_text(executor))[0] == "miss"


async def test_answers_outlive_the_server_on_disk(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"disk://{tmp_path_factory.mktemp('cache')}"
    for expected in ("miss", "hit", "hit"):
        executor = CachingExecutor(ScriptedExecutor(), open_backend(url), settings())
        await executor.start()
        assert await outcome_and_text(executor) == (expected, "one two three")
        async with asyncio.timeout(PATIENCE_SECONDS):
            # What it tells is what the disk told last.
            while (await executor.statistics()).cached_items != 1:
                pass
        await executor.aclose()


@pytest.mark.parametrize("tiers", [0, 1], ids=["alone", "behind memory"])
async def test_a_store_that_cannot_be_is_told_of_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tiers: int
) -> None:
    (tmp_path / "file").write_text("in the way")
    backend = open_backend(["memory://"] * tiers + [f"disk://{tmp_path}/file/cache"])
    executor = CachingExecutor(ScriptedExecutor(), backend, settings())
    await executor.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "Not a directory" not in caplog.text:  # noqa: ASYNC110 -- nothing announces it
            await asyncio.sleep(0.005)
    assert await outcome_and_text(executor) == ("miss", "one two three")
    await executor.aclose()


async def test_the_rest_is_the_inner_executors() -> None:
    inner = ScriptedExecutor()
    executor = CachingExecutor(inner, MemoryBackend(), settings())
    assert executor.profile is inner.profile
    assert executor.status() == inner.status()
    assert await executor.count_tokens(ask("a b c")) == 3
    assert await executor.ask(Tokenize("a")) == TokensFound((97,), (b"a",))
    await executor.aclose()


@pytest.mark.parametrize(("debug_level", "shown"), [(1, ""), (2, "one two three")])
async def test_questions_are_listed_from_debug_level_2(debug_level: int, shown: str) -> None:
    executor = numbered(debug_level=debug_level)
    await outcome_and_text(executor)
    (listed,) = (await executor.upkeep.list(10)).answers
    assert listed.question == shown
    await executor.aclose()


async def test_two_models_share_a_store_and_no_answer() -> None:
    executor = numbered()
    inner = ScriptedExecutor(profile=msgspec.structs.replace(executor.profile, fingerprint="other"))
    beside = executor.around(inner)
    assert beside.profile is inner.profile
    for outcome in ("miss", "hit"):
        assert await outcome_and_text(executor) == (outcome, "answer 1")
        assert await outcome_and_text(beside) == (outcome, "one two three")
    assert (await beside.statistics()).cached_items == 2
    assert beside.counters.hits == executor.counters.hits == 2
    await executor.aclose()


async def test_two_models_with_the_same_files_share_no_generation() -> None:
    """One may be unloaded, or have less room."""
    scripted = Numbered()
    scripted.gate.clear()
    executor = CachingExecutor(ScriptedExecutor(scripted.script), MemoryBackend(), settings())
    beside = executor.around(ScriptedExecutor(profile=msgspec.structs.replace(executor.profile, id="beside")))
    answers = [await each.submit(ask()) for each in (executor, beside)]
    assert [answer.outcome for answer in answers] == ["miss", "miss"]
    scripted.gate.set()
    assert [(await answer.completion()).choices[0].text for answer in answers] == ["answer 1", "one two three"]
    await executor.aclose()


async def test_an_answer_may_be_closed_unread() -> None:
    executor = numbered()
    answers: list[CachedAnswer] = [await executor.submit(ask())]
    await answers[0].completion()
    answers.append(await executor.submit(ask()))
    answers.append(await executor.submit(ask(), NO_STORE))
    for answer in answers:
        await answer.aclose()
        await answer.aclose()
    await executor.aclose()
