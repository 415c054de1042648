"""Claude Code as a child of the launcher: its environment, its signals, its exit code.

What the variables do was read from Claude Code 2.1.197 and tried with it.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

from service.cli.client import Model
from service.config import Address
from service.settings import Settings

INSTALL = "npm install -g @anthropic-ai/claude-code"

LONGEST_IDLE_MS = 1_800_000
"""Claude Code's own upper bound for a stream that is silent."""

OWN_PROMPT_TOKENS = 20_000
"""What Claude Code's own prompt and its tools take, about."""

FIRST_TURN_NEEDS_TOKENS = 24_000
"""Its own prompt, and room for a question and an answer."""

COMPACTION_NEEDS_TOKENS = 40_000
"""Claude Code keeps 13,000 tokens and the answer's share free, beside its own prompt: in a smaller context it would
compact, or refuse to go on, at every turn. There the server's answer decides what still fits."""

LARGEST_OUTPUT_TOKENS = 32_000
SMALLEST_OUTPUT_TOKENS = 1_024

OTHER_ACCOUNTS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_UNIX_SOCKET",
    "CLAUDE_CODE_API_BASE_URL",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_GATEWAY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_VERTEX",
)
"""They would lead Claude Code to another provider, or hand the user's own key to this server."""

MODEL_VARIABLES = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_DEFAULT_FABLE_MODEL",
    "CLAUDE_CODE_SUBAGENT_MODEL",
)


def find_claude(environ: Mapping[str, str]) -> str | None:
    return shutil.which("claude", path=environ.get("PATH"))


def prompt_too_long(model: Model, arguments: tuple[str, ...]) -> str | None:
    """What to know of a model too small for Claude Code's own prompt, unless `arguments` shorten it: Claude Code only
    says "Prompt is too long", and ends."""
    if model.context_length >= FIRST_TURN_NEEDS_TOKENS or any(a.startswith("--system-prompt") for a in arguments):
        return None
    return (
        f"{model.id} reads {model.context_length:,} tokens, and Claude Code alone sends about {OWN_PROMPT_TOKENS:,}. "
        "Use a larger model, or a shorter prompt: anyclaude --tools Bash --system-prompt 'You are terse.'"
    )


def claude_environment(
    environ: Mapping[str, str], settings: Settings, address: Address, model: Model
) -> dict[str, str]:
    """The environment in which `claude` works on this server. Where it goes is ours to say; a limit or a timeout that
    the user has set stays."""
    kept = {name: value for name, value in environ.items() if name not in OTHER_ACCOUNTS}
    unset = {name: value for name, value in _preferences(settings, model).items() if not kept.get(name)}
    forced = {
        "ANTHROPIC_BASE_URL": address.root,
        "ANTHROPIC_AUTH_TOKEN": settings.api_key,
        **dict.fromkeys(MODEL_VARIABLES, model.id),
        **_no_proxy(kept, address),
    }
    return kept | unset | forced


def _preferences(settings: Settings, model: Model) -> dict[str, str]:
    """What suits this server and its model."""
    patience_ms = str(round(1000 * (settings.queue_timeout_seconds + settings.request_timeout_seconds)))
    return _limits(model.context_length) | {
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "API_TIMEOUT_MS": patience_ms,
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": str(LONGEST_IDLE_MS),
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": str(LONGEST_IDLE_MS),
        "CLAUDE_ASYNC_AGENT_STALL_TIMEOUT_MS": patience_ms,
    }


def _limits(context_length: int) -> dict[str, str]:
    """In tokens: an eighth of the context for an answer leaves the rest to the conversation."""
    output = min(max(context_length // 8, SMALLEST_OUTPUT_TOKENS), LARGEST_OUTPUT_TOKENS)
    limits = {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(output)}
    if context_length < COMPACTION_NEEDS_TOKENS:
        return limits | {"DISABLE_AUTO_COMPACT": "1"}
    return limits | {
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(context_length),
        "CLAUDE_CODE_AUTO_COMPACT_WINDOW": str(context_length),
    }


def _no_proxy(environ: Mapping[str, str], address: Address) -> dict[str, str]:
    """A proxy of the environment cannot reach a server on this machine."""
    if not address.local:
        return {}
    names = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    listed = ",".join(part for part in (names, "localhost,127.0.0.1,::1") if part)
    return {"NO_PROXY": listed, "no_proxy": listed}


def run_claude(command: list[str], environ: Mapping[str, str]) -> int:
    """Runs Claude Code to its end. Returns its exit code, or 128 and the signal that ended it, as shells do."""
    child = subprocess.Popen(command, env=dict(environ))  # noqa: S603 - what the user asked to run
    with _signals_to(child):
        while True:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            # Suspended from its own prompt: the shell waits for us, so we stop too, and wake it when we go on.
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child.pid, signal.SIGCONT)
    code = os.waitstatus_to_exitcode(status)
    child.returncode = code
    return 128 - code if code < 0 else code


@contextmanager
def _signals_to(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    """SIGTERM and SIGHUP are passed on. SIGINT and SIGQUIT come to the child from the terminal itself, which signals
    the whole foreground group; only without a terminal are they passed on."""

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def leave_to_terminal(number: int, frame: FrameType | None) -> None:
        if not _in_foreground():
            forward(number, frame)

    handlers = {
        signal.SIGTERM: forward,
        signal.SIGHUP: forward,
        signal.SIGINT: leave_to_terminal,
        signal.SIGQUIT: leave_to_terminal,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
