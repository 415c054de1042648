"""The environment that Claude Code gets, by model and by machine."""

from pathlib import Path

import pytest

from service.cli.claude_code import claude_environment, prompt_too_long
from service.cli.client import Model
from service.config.address import parse_base_url
from service.settings import Settings

LOCAL = parse_base_url("http://localhost:8081/v1")
REMOTE = parse_base_url("https://gpu.example/v1")
SETTINGS = Settings(home=Path("/home/me/.anyclaude"))


def environment(context_length: int, **given: str) -> dict[str, str]:
    return claude_environment(given, SETTINGS, LOCAL, Model(id="m", context_length=context_length))


@pytest.mark.parametrize(
    ("context_length", "output", "window"),
    [
        (2_048, "1024", None),
        (8_192, "1024", None),
        (39_999, "4999", None),
        (40_000, "5000", "40000"),
        (131_072, "16384", "131072"),
        (1_000_000, "32000", "1000000"),
    ],
)
def test_limits_follow_the_models_context(context_length: int, output: str, window: str | None) -> None:
    given = environment(context_length)
    assert given["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == output
    assert given.get("CLAUDE_CODE_MAX_CONTEXT_TOKENS") == window
    assert given.get("CLAUDE_CODE_AUTO_COMPACT_WINDOW") == window
    assert given.get("DISABLE_AUTO_COMPACT") == (None if window else "1")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "a"}, "a,localhost,127.0.0.1,::1"),
        ({"no_proxy": "b"}, "b,localhost,127.0.0.1,::1"),
    ],
)
def test_a_proxy_is_not_asked_for_this_machine(before: dict[str, str], after: str) -> None:
    given = environment(8_192, **before)
    assert (given["NO_PROXY"], given["no_proxy"]) == (after, after)


def test_a_proxy_stays_in_force_for_another_machine() -> None:
    given = claude_environment({"NO_PROXY": "a"}, SETTINGS, REMOTE, Model(id="m", context_length=8_192))
    assert given["NO_PROXY"] == "a"
    assert given["ANTHROPIC_BASE_URL"] == "https://gpu.example"


def test_a_limit_that_the_user_has_set_stays() -> None:
    chosen = {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "2048", "API_TIMEOUT_MS": "5000", "DISABLE_AUTO_COMPACT": "0"}
    given = environment(8_192, **chosen, CLAUDE_STREAM_IDLE_TIMEOUT_MS="")
    assert {name: given[name] for name in chosen} == chosen
    assert given["CLAUDE_STREAM_IDLE_TIMEOUT_MS"] == "1800000"


def test_where_claude_code_goes_is_not_the_users_to_say() -> None:
    given = environment(8_192, ANTHROPIC_BASE_URL="https://elsewhere", ANTHROPIC_AUTH_TOKEN="x", ANTHROPIC_MODEL="y")
    assert given["ANTHROPIC_BASE_URL"] == LOCAL.root
    assert given["ANTHROPIC_AUTH_TOKEN"] == SETTINGS.api_key
    assert given["ANTHROPIC_MODEL"] == "m"


@pytest.mark.parametrize(
    ("context_length", "arguments", "said"),
    [
        (8_192, (), True),
        (8_192, ("-p", "hello", "--tools", "Bash"), True),
        (8_192, ("--tools", "Bash", "--system-prompt", "Be brief."), False),
        (8_192, ("--system-prompt=Be brief.",), False),
        (23_999, (), True),
        (24_000, (), False),
    ],
)
def test_a_model_too_small_for_claude_codes_own_prompt(
    context_length: int, arguments: tuple[str, ...], said: bool
) -> None:
    note = prompt_too_long(Model(id="m", context_length=context_length), arguments)
    assert (note is not None) is said
    if note is not None:
        assert note.startswith(f"m reads {context_length:,} tokens, and Claude Code alone sends about 20,000.")
