"""`Cache-Control` as clients write it, and `Cache-Status` as they read it."""

import pytest

from service.errors import BadRequest
from service.generation import Completion, Usage
from service.http.cache_headers import cache_headers, cache_status, read_cache_control
from service.response_cache.base import NO_DIRECTIVES, CacheDirectives, CacheOutcome, StoredAnswer


@pytest.mark.parametrize(
    ("header", "directives"),
    [
        (b"", NO_DIRECTIVES),
        (b"private, x=y", NO_DIRECTIVES),
        (b"no-cache", CacheDirectives(no_cache=True)),
        (b"No-Store", CacheDirectives(no_store=True)),
        (b"only-if-cached,max-age=60", CacheDirectives(only_if_cached=True, max_age=60)),
        (b'max-age = "0"', CacheDirectives(max_age=0)),
        (b"max-age=99999999999999999999", CacheDirectives(max_age=999_999_999_999)),
        (b"private, no-cache, no-store", CacheDirectives(no_cache=True, no_store=True)),
    ],
    ids=str,
)
def test_what_a_client_asks(header: bytes, directives: CacheDirectives) -> None:
    assert read_cache_control({b"cache-control": header}) == directives


@pytest.mark.parametrize(
    ("headers", "no_cache"),
    [
        ({b"pragma": b"no-cache"}, True),
        ({b"pragma": b"x, No-Cache"}, True),
        ({b"pragma": b"x"}, False),
        ({b"pragma": b"no-cache", b"cache-control": b"max-age=9"}, False),
    ],
    ids=str,
)
def test_pragma_counts_without_cache_control(headers: dict[bytes, bytes], no_cache: bool) -> None:
    assert read_cache_control(headers).no_cache is no_cache


@pytest.mark.parametrize(("age", "header"), [(0.0, b"0"), (61.9, b"61")])
def test_a_hit_has_its_age(age: float, header: bytes) -> None:
    completion = Completion(choices=(), usage=Usage(prompt_tokens=0, completion_tokens=0))
    assert cache_headers(StoredAnswer(completion, age=age)) == [(b"cache-status", b"anyclaude; hit"), (b"age", header)]
    assert dict(cache_headers(StoredAnswer(completion, "collapsed"))).keys() == {b"cache-status"}


def test_without_the_header_nothing_is_asked() -> None:
    assert read_cache_control({}) == NO_DIRECTIVES


@pytest.mark.parametrize("value", ["", "=", "=-1", "=1.5", "=soon", "=\u0661"])
def test_an_age_is_a_whole_number_of_seconds(value: str) -> None:
    with pytest.raises(BadRequest, match="max-age"):
        read_cache_control({b"cache-control": b"max-age" + value.encode()})


@pytest.mark.parametrize(
    ("outcome", "stored", "status"),
    [
        ("hit", False, "anyclaude; hit"),
        ("miss", True, "anyclaude; fwd=uri-miss; stored"),
        ("miss", False, "anyclaude; fwd=uri-miss"),
        ("collapsed", True, "anyclaude; fwd=uri-miss; collapsed"),
        ("bypass", True, "anyclaude; fwd=bypass; stored"),
        ("bypass", False, "anyclaude; fwd=bypass"),
    ],
)
def test_what_a_client_is_told(outcome: CacheOutcome, stored: bool, status: str) -> None:
    answer = StoredAnswer(Completion(choices=(), usage=Usage(prompt_tokens=0, completion_tokens=0)), outcome)
    answer.stored = stored
    assert cache_status(answer) == status
