"""The `anyclaude` command. Its first word selects a command; other arguments are for Claude Code.

- `launch`: runs an agent (`agents/`) on a local server, with `startup` and `server_process`
- `first_start`: without a configured model, the launcher asks for one
- `connect`: prints an agent's settings instead
- `serve`: the server in the foreground; `distributed`: one rank of several
- `run` (a chat), `models`, `ps`, `stop`, `logs`, `config`, `trust`, `warm`
- `stats` with `stats_view` and `figures`; `cache` with `held_answers`, `stores` and `explanation`
- `doctor` with `checks/` and `report`; `bench` with `measurement`
- `client`: HTTP requests to a server; `configuration`: the settings for commands
- `options`: options generated from `Settings`; `exits`: exit codes

Commands import the service when they run, so that `--help` is fast.
"""

import errno
import io
import os
import signal
import sys
from difflib import get_close_matches
from importlib import import_module

import click

from service.agents.table import AGENTS

COMMANDS = (
    "serve",
    "run",
    "connect",
    "models",
    "ps",
    "stop",
    "logs",
    "stats",
    "config",
    "trust",
    "doctor",
    "bench",
    "cache",
    "warm",
)
# Names of other tools for commands here.
OTHER_NAMES = {
    "list": "models list",
    "ls": "models list",
    "pull": "models pull",
    "download": "models pull",
    "rm": "models rm",
    "recommend": "models recommend",
    "chat": "run",
    "kill": "stop",
    "start": "serve",
    "up": "serve",
    "record": "serve --record FILE",
    "replay": "serve --replay FILE",
    "status": "stats",
    "dashboard": "stats",
    "check": "doctor",
    "benchmark": "bench",
    "settings": "config",
    "help": "--help",
    "version": "--version",
}
_OURS = ("-h", "--help", "--version")
EPILOG = (
    "Without a command, all arguments but --mode go to Claude Code; 'anyclaude -- --help' shows its own help. "
    "Exit codes: the agent's, or 66 no model, 69 no server, 75 port in use, 78 wrong configuration, "
    "127 agent not installed, 130 Ctrl-C."
)


class CommandsOnDemand(click.Group):
    """Imports a command's module when it is used. Ctrl-C exits with 130, as shells expect."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo(err=True)  # after the terminal's ^C
            sys.exit(128 + signal.SIGINT)
        except OSError as exc:
            if exc.filename is not None or exc.errno not in (errno.ENOSPC, errno.EIO):
                raise
            # Python flushes the rest when it exits, and would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise click.ClickException(f"The output cannot be written: {exc.strerror}.") from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in AGENTS:
            made: click.Command = import_module("service.cli.launch").agent_command(cmd_name)
            return made
        if cmd_name not in (*COMMANDS, "launch"):
            return None
        command: click.Command = import_module(f"service.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Agents, on the local server"):
            formatter.write_dl([(name, f"Run {agent.title}.") for name, agent in AGENTS.items()])
        super().format_commands(ctx, formatter)


@click.group(
    cls=CommandsOnDemand,
    name="anyclaude",
    epilog=EPILOG,
    subcommand_metavar="[--mode=vllm-mlx] [CLAUDE ARGS]... | AGENT [ITS ARGS]... | COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="anyclaude", prog_name="anyclaude", message="%(prog)s %(version)s")
def anyclaude() -> None:
    """Claude Code, other coding agents and any OpenAI or Anthropic API client on a local MLX model."""
    try:
        os.getcwd()
    except OSError as exc:
        problem = f"The working folder cannot be used: {exc.strerror}. Change to another folder first."
        raise click.ClickException(problem) from None


def main() -> None:
    """The console script. Characters that the terminal's encoding lacks become question marks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    arguments = sys.argv[1:]
    if command := misspelt(arguments):
        message = f"no command {arguments[0]!r}. Did you mean 'anyclaude {command}'?"
        click.echo(f"Error: {message} To send it to Claude Code: anyclaude -- {' '.join(arguments)}", err=True)
        sys.exit(2)
    anyclaude.main(route(arguments), prog_name="anyclaude")


def misspelt(arguments: list[str]) -> str | None:
    """Returns the command that the user probably meant, because Claude Code would take the words for a prompt."""
    if not arguments or arguments[0] in (*COMMANDS, *AGENTS):
        return None
    other = OTHER_NAMES.get(arguments[0], "")
    if other.startswith("models") or (len(arguments) == 1 and other):
        return other
    if len(arguments) > 1:
        return None
    return next(iter(get_close_matches(arguments[0], (*COMMANDS, *AGENTS), n=1, cutoff=0.8)), None)


def route(arguments: list[str]) -> list[str]:
    """Returns click's arguments: a command's own, or the launcher's with Claude Code's behind `--`. `anyclaude -p
    stats` asks Claude Code about stats."""
    if arguments and arguments[0] in (*COMMANDS, *_OURS):
        return arguments
    if arguments and arguments[0] in AGENTS:
        return [arguments[0], "--", *arguments[1:]]
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
