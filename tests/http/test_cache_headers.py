"""`Cache-Control` as clients write it, and `Cache-Status` as they read it."""

import pytest

from service.errors import BadRequest
from service.executor.base import NO_DIRECTIVES, CacheDirectives, CacheOutcome, StoredAnswer
from service.generation import Completion, Usage
from service.http.cache_headers import cache_status, read_cache_control


@pytest.mark.parametrize(
    ("lines", "directives"),
    [
        ([], NO_DIRECTIVES),
        ([""], NO_DIRECTIVES),
        (["private, x=y"], NO_DIRECTIVES),
        (["no-cache"], CacheDirectives(no_cache=True)),
        (["No-Store"], CacheDirectives(no_store=True)),
        (["only-if-cached,max-age=60"], CacheDirectives(only_if_cached=True, max_age=60)),
        (['max-age = "0"'], CacheDirectives(max_age=0)),
        (["max-age=99999999999999999999"], CacheDirectives(max_age=999_999_999_999)),
        (["private", "no-cache", "no-store"], CacheDirectives(no_cache=True, no_store=True)),
    ],
    ids=str,
)
def test_what_a_client_asks(lines: list[str], directives: CacheDirectives) -> None:
    assert read_cache_control(lines) == directives


@pytest.mark.parametrize("value", ["", "=", "=-1", "=1.5", "=soon", "=\u0661"])
def test_an_age_is_a_whole_number_of_seconds(value: str) -> None:
    with pytest.raises(BadRequest, match="max-age"):
        read_cache_control([f"max-age{value}"])


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
