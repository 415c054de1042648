"""The `anyclaude` command. Its first word chooses a command; anything else is for Claude Code.

Only what every command needs is imported here: the commands import the service, and MLX, when they run.
"""

import io
import signal
import sys
from difflib import get_close_matches
from importlib import import_module

import click

COMMANDS = ("serve", "stats", "config", "trust", "doctor", "cache", "warm")
_OURS = ("-h", "--help", "--version")
EPILOG = (
    "Without a command, everything but --mode goes to Claude Code untouched; 'anyclaude -- --help' is Claude Code's "
    "own help. Exit codes: Claude Code's, or 66 no model, 69 no server, 75 port in use, 78 wrong configuration, "
    "127 no Claude Code, 130 Ctrl-C."
)


class CommandsOnDemand(click.Group):
    """Imports a command's module when it is asked for. Ctrl-C ends any of them with the code that shells expect."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo(err=True)  # after the terminal's ^C
            sys.exit(128 + signal.SIGINT)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in (*COMMANDS, "launch"):
            return None
        command: click.Command = import_module(f"service.cli.{cmd_name}").command
        return command


@click.group(
    cls=CommandsOnDemand,
    name="anyclaude",
    epilog=EPILOG,
    subcommand_metavar="[--mode=vllm-mlx] [CLAUDE ARGS]... | COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="anyclaude", prog_name="anyclaude", message="%(prog)s %(version)s")
def anyclaude() -> None:
    """Claude Code, and any OpenAI or Anthropic API client, on a local MLX model."""


def main() -> None:
    """The console script. What the terminal's encoding lacks is shown as a question mark."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    arguments = sys.argv[1:]
    if command := misspelt(arguments):
        said = f"no command {arguments[0]!r}. Did you mean 'anyclaude {command}'?"
        click.echo(f"Error: {said} To ask Claude Code just that: anyclaude -- {arguments[0]}", err=True)
        sys.exit(2)
    anyclaude.main(route(arguments), prog_name="anyclaude")


def misspelt(arguments: list[str]) -> str | None:
    """The command that a lone word nearly names. As a question to Claude Code it would start a server first."""
    if len(arguments) != 1 or arguments[0] in COMMANDS:
        return None
    return next(iter(get_close_matches(arguments[0], COMMANDS, n=1, cutoff=0.8)), None)


def route(arguments: list[str]) -> list[str]:
    """The arguments as the group takes them: a command's own, or the launcher's, with what is Claude Code's behind a
    `--`, where click leaves it alone. `anyclaude -p stats` asks Claude Code about stats."""
    if arguments and arguments[0] in (*COMMANDS, *_OURS):
        return arguments
    ours: list[str] = []
    rest = list(arguments)
    while rest and (rest[0] == "--mode" or rest[0].startswith("--mode=")):
        taken = 2 if rest[0] == "--mode" else 1
        ours, rest = ours + rest[:taken], rest[taken:]
    if rest and rest[0] in _OURS:
        return rest[:1]
    if rest and rest[0] == "--":
        rest = rest[1:]
    return ["launch", *ours, "--", *rest]
