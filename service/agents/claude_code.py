"""Claude Code's environment and arguments. Tried with 2.1.197 and 2.1.332."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from service.agents.agent import AgentServer, Launch, Setup
from service.storage import open_regular

# The longest that Claude Code accepts.
LONGEST_IDLE_MS = 1_800_000

# Claude Code's own prompt and tools, in SmolLM2's tokens.
OWN_PROMPT_TOKENS = 12_000

FIRST_TURN_NEEDS_TOKENS = 16_000
# Claude Code keeps 13,000 tokens and the answer's share free. In a smaller context it would compact at every turn.
COMPACTION_NEEDS_TOKENS = 40_000

# Claude Code ignores a smaller CLAUDE_CODE_AUTO_COMPACT_WINDOW.
SMALLEST_WINDOW_TOKENS = 100_000

# They lead Claude Code to another provider, or send it the user's own key.
OTHER_ACCOUNTS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_UNIX_SOCKET",
    "CLAUDE_CODE_API_BASE_URL",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_GATEWAY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_VERTEX",
)

MODEL_VARIABLES = {
    "ANTHROPIC_MODEL": "opus",
    "ANTHROPIC_SMALL_FAST_MODEL": "haiku",
    "ANTHROPIC_DEFAULT_MODEL": "opus",
    "ANTHROPIC_DEFAULT_OPUS_MODEL": "opus",
    "ANTHROPIC_DEFAULT_SONNET_MODEL": "sonnet",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL": "haiku",
    "ANTHROPIC_DEFAULT_FABLE_MODEL": "opus",
    "CLAUDE_CODE_AUTO_MODE_MODEL": "haiku",
    "CLAUDE_CODE_BG_CLASSIFIER_MODEL": "haiku",
    "CLAUDE_CODE_SUBAGENT_MODEL": "sonnet",
    "CLAUDE_CODE_WORKFLOW_SUBAGENT_MODEL": "sonnet",
}
TIER_NAMES = {"opus": "claude-opus-4-8", "sonnet": "claude-sonnet-4-6", "haiku": "claude-haiku-4-5"}
PERMISSION_OPTIONS = ("--permission-mode", "--dangerously-skip-permissions", "--allow-dangerously-skip-permissions")
SETTINGS_FILES = (".claude/settings.local.json", ".claude/settings.json")


class _Permissions(msgspec.Struct, frozen=True, rename="camel"):
    default_mode: str = ""


class _ClaudeSettings(msgspec.Struct, frozen=True):
    permissions: _Permissions = _Permissions()


def prompt_too_long(server: AgentServer, arguments: tuple[str, ...]) -> str | None:
    """Returns a note if Claude Code's own prompt does not fit. Claude Code's error does not explain this."""
    if server.context_length >= FIRST_TURN_NEEDS_TOKENS or any(a.startswith("--system-prompt") for a in arguments):
        return None
    return (
        f"{server.model} reads {server.context_length:,} tokens, and Claude Code alone sends about "
        f"{OWN_PROMPT_TOKENS:,}, so it cannot answer. "
        "Use a larger model, or a shorter prompt: anyclaude --tools Bash --system-prompt 'You are terse.'"
    )


def claude_setup(launch: Launch) -> Setup:
    server = launch.server
    kept = {name: value for name, value in _preferences(server).items() if not launch.environ.get(name)}
    forced = {
        "ANTHROPIC_BASE_URL": server.root,
        "ANTHROPIC_AUTH_TOKEN": server.api_key,
        **{name: server.tiers.get(tier, server.model) for name, tier in MODEL_VARIABLES.items()},
    }
    return Setup(variables=kept | forced, removed=OTHER_ACCOUNTS, arguments=tuple(_permission_mode(launch)))


def _preferences(server: AgentServer) -> dict[str, str]:
    patience_ms = str(round(1000 * server.patience_seconds))
    return _limits(server) | {
        "API_TIMEOUT_MS": patience_ms,
        "CLAUDE_ASYNC_AGENT_STALL_TIMEOUT_MS": patience_ms,
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": str(LONGEST_IDLE_MS),
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": str(LONGEST_IDLE_MS),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        # Each of these changes the front of the prompt between requests, so it would have to be read again.
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_TOTAL_TOKENS_REMINDER": "off",
        "ENABLE_LSP_TOOL": "0",
    }


def _limits(server: AgentServer) -> dict[str, str]:
    context_length = server.context_length
    limits = {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(server.output_tokens)}
    if context_length < COMPACTION_NEEDS_TOKENS:
        return limits | {"DISABLE_AUTO_COMPACT": "1"}
    limits["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(context_length)
    if context_length >= SMALLEST_WINDOW_TOKENS:
        limits["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(context_length)
    return limits


def _permission_mode(launch: Launch) -> Iterator[str]:
    """The default mode checks safety on Anthropic's servers. The user's own mode stays; subcommands such as `mcp` get
    none."""
    arguments = launch.arguments
    chosen = any(argument.partition("=")[0] in PERMISSION_OPTIONS for argument in arguments)
    subcommand = bool(arguments) and re.fullmatch(r"[a-z][a-z-]*", arguments[0]) is not None
    if not chosen and not subcommand and _configured_mode(launch.environ) in ("", "auto"):
        yield from ("--permission-mode", "default")


def _configured_mode(environ: Mapping[str, str]) -> str:
    """Returns Claude Code's own setting, the working folder's first, or ""."""
    for folder in (Path.cwd(), Path(environ.get("HOME") or os.path.expanduser("~"))):
        for name in SETTINGS_FILES:
            try:
                with open_regular(folder / name) as file:
                    settings = msgspec.json.decode(file.read(), type=_ClaudeSettings)
            except (OSError, ValueError, RecursionError):
                continue
            if settings.permissions.default_mode:
                return settings.permissions.default_mode
    return ""
