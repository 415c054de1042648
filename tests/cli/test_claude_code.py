"""The environment that Claude Code gets, by model and by machine."""

import json
import os
import pty
from pathlib import Path

import msgspec
import pytest

from service.agents.agent import AgentServer, Launch, Setup
from service.agents.claude_code import claude_setup, prompt_too_long


def server(context_length: int) -> AgentServer:
    return AgentServer(
        root="http://localhost:8081", api_key="key", model="m", context_length=context_length, patience_seconds=4200
    )


def setup(context_length: int, *arguments: str, folder: Path = Path("/nowhere"), **given: str) -> Setup:
    return claude_setup(
        Launch(
            server=server(context_length), folder=folder, environ={"HOME": str(folder), **given}, arguments=arguments
        )
    )


def environment(context_length: int, **given: str) -> dict[str, str]:
    return given | setup(context_length, **given).variables


def test_each_tier_has_its_model() -> None:
    tiers = {"haiku": "small", "opus": "m", "sonnet": "middle"}
    launched = Launch(server=msgspec.structs.replace(server(100_000), tiers=tiers), folder=Path("/nowhere"), environ={})
    variables = claude_setup(launched).variables
    names = ("ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL")
    assert [variables[name] for name in names] == ["m", "small", "middle"]


@pytest.mark.parametrize(
    ("context_length", "output", "window"),
    [
        (2_048, "1024", None),
        (8_192, "1024", None),
        (39_999, "4999", None),
        (40_000, "5000", "40000"),
        (99_999, "12499", "99999"),
        (131_072, "16384", "131072"),
        (1_000_000, "32000", "1000000"),
    ],
)
def test_limits_follow_the_models_context(context_length: int, output: str, window: str | None) -> None:
    given = environment(context_length)
    assert given["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == output
    assert given.get("CLAUDE_CODE_MAX_CONTEXT_TOKENS") == window
    assert given.get("CLAUDE_CODE_AUTO_COMPACT_WINDOW") == (window if context_length >= 100_000 else None)
    assert given.get("DISABLE_AUTO_COMPACT") == (None if window else "1")


def test_a_limit_that_the_user_has_set_stays() -> None:
    chosen = {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "2048", "API_TIMEOUT_MS": "5000", "DISABLE_AUTO_COMPACT": "0"}
    given = environment(8_192, **chosen, CLAUDE_STREAM_IDLE_TIMEOUT_MS="")
    assert {name: given[name] for name in chosen} == chosen
    assert given["CLAUDE_STREAM_IDLE_TIMEOUT_MS"] == "1800000"


def test_where_claude_code_goes_is_not_the_users_to_say() -> None:
    given = environment(8_192, ANTHROPIC_BASE_URL="https://elsewhere", ANTHROPIC_AUTH_TOKEN="x", ANTHROPIC_MODEL="y")
    assert given["ANTHROPIC_BASE_URL"] == "http://localhost:8081"
    assert given["ANTHROPIC_AUTH_TOKEN"] == "key"
    assert given["ANTHROPIC_MODEL"] == "m"


@pytest.mark.parametrize(
    ("context_length", "arguments", "said"),
    [
        (8_192, (), True),
        (8_192, ("-p", "hello", "--tools", "Bash"), True),
        (8_192, ("--tools", "Bash", "--system-prompt", "Be brief."), False),
        (8_192, ("--system-prompt=Be brief.",), False),
        (15_999, (), True),
        (16_000, (), False),
    ],
)
def test_a_model_too_small_for_claude_codes_own_prompt(
    context_length: int, arguments: tuple[str, ...], said: bool
) -> None:
    note = prompt_too_long(server(context_length), arguments)
    assert (note is not None) is said
    if note is not None:
        assert note.startswith(f"m reads {context_length:,} tokens, and Claude Code alone sends about 12,000, so ")


def test_all_models_that_claude_code_may_ask_for_are_the_served_one() -> None:
    given = environment(8_192)
    models = {name: value for name, value in given.items() if "MODEL" in name}
    assert set(models.values()) == {"m"}
    assert {"CLAUDE_CODE_AUTO_MODE_MODEL", "CLAUDE_CODE_BG_CLASSIFIER_MODEL"} <= models.keys()


def test_nothing_moves_the_front_of_the_prompt() -> None:
    given = environment(8_192)
    assert (given["CLAUDE_CODE_TOTAL_TOKENS_REMINDER"], given["ENABLE_LSP_TOOL"]) == ("off", "0")


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        ((), True),
        (("-p", "hello"), True),
        (("explain this",), True),
        (("--permission-mode", "plan"), False),
        (("--permission-mode=plan",), False),
        (("-p", "x", "--dangerously-skip-permissions"), False),
        (("mcp", "list"), False),
        (("setup-token",), False),
    ],
)
def test_claude_code_asks_before_it_runs_a_command(arguments: tuple[str, ...], added: bool) -> None:
    assert setup(8_192, *arguments).arguments == (("--permission-mode", "default") if added else ())


@pytest.mark.parametrize(("mode", "added"), [("auto", True), ("acceptEdits", False), ("", True), (3, True)])
def test_the_permission_mode_of_the_users_settings_stays(tmp_path: Path, mode: object, added: bool) -> None:
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "settings.json").write_text(json.dumps({"permissions": {"defaultMode": mode}}))
    assert bool(setup(8_192, folder=tmp_path).arguments) is added


def test_a_device_in_the_place_of_the_users_settings_is_not_read(tmp_path: Path) -> None:
    """It might be /dev/zero, which never ends. This one is a terminal, whose text would be the settings."""
    ours, theirs = pty.openpty()
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "settings.json").symlink_to(os.ttyname(theirs))
    os.write(ours, b'{"permissions": {"defaultMode": "plan"}}\n\x04')
    try:
        assert setup(8_192, folder=tmp_path).arguments == ("--permission-mode", "default")
    finally:
        os.close(theirs)
        os.close(ours)
