import json
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from service.cli.configuration import read_configuration
from service.cli.figures import ANSWERS, counted
from service.cli.held_answers import HeldAnswers, StoreAnswers, find_answers, on_stores, shared_stores, whole_key
from service.cli.options import config_option

if TYPE_CHECKING:
    from cache_backends.base import BackendStats
    from service.response_cache.upkeep import ListedAnswer

WRITES = ("write", "writes")


@click.group("cache", short_help="Look into the response cache, empty it, move it, explain a miss.")
def command() -> None:
    """Manage the response cache: the stores under 'cache' in .anyclauderc.json.

    A running server is asked, because only it can read its memory:// store. 'export' and 'import' open the other
    stores themselves.
    """


def _with_stores(function: Callable[..., None]) -> Callable[..., None]:
    @click.option("--cache", "urls", multiple=True, metavar="URL", help="These stores instead of the configured ones.")
    @config_option
    @wraps(function)
    def run(*, urls: tuple[str, ...], config: str | None, **others: Any) -> None:
        settings = read_configuration({"cache": urls or None, "config": config}).settings
        function(stores=shared_stores(settings), **others)

    return run


def _with_answers(function: Callable[..., None]) -> Callable[..., None]:
    @click.option("--cache", "urls", multiple=True, metavar="URL", help="These stores instead of the running server.")
    @config_option
    @wraps(function)
    def run(*, urls: tuple[str, ...], config: str | None, **others: Any) -> None:
        settings = read_configuration({"cache": urls or None, "config": config}).settings
        function(held=StoreAnswers(shared_stores(settings)) if urls else find_answers(settings), **others)

    return run


@command.command("stats")
@_with_answers
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def stats(held: HeldAnswers, as_json: bool) -> None:
    """Show how many answers each store holds, and how large they are."""
    found = held.stats()
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        click.echo("\n".join(_describe(found)))


@command.command("clear")
@_with_answers
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(held: HeldAnswers, yes: bool) -> None:
    """Remove every answer, from the memory of the running server too.

    The stored responses of POST /v1/responses are in the same store and are removed too.
    """
    if not yes:
        click.confirm(f"Remove every answer from {held.name}?", abort=True)
    click.echo(f"{counted(held.clear(), ANSWERS)} removed.")


@command.command("delete")
@click.argument("key")
@_with_answers
def delete(key: str, held: HeldAnswers) -> None:
    """Remove the answer that is stored under KEY, or under the only key that begins so."""
    held.remove(whole_key(held, key))
    click.echo(f"{counted(1, ANSWERS)} removed.")


@command.command("list")
@_with_answers
@click.option("--json", "as_json", is_flag=True, help="For programs: a line of JSON for each answer.")
def list_answers(held: HeldAnswers, as_json: bool) -> None:
    """Show a line for each stored answer. 'get KEY' shows the content."""
    answers = held.list()
    if not as_json:
        click.echo(f"{'KEY':64}  {'STORED':20}  {'BYTES':>7}  TOKENS")
    for answer in answers:
        click.echo(_listed_json(answer) if as_json else _listed(answer))


@command.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_with_stores
def export_file(file: Path, stores: tuple[str, ...]) -> None:
    """Write every answer to FILE, one line of JSON each. Only you can read the file. An existing FILE is replaced."""
    from service.recording.transfer import export_answers

    exported = on_stores(stores, lambda store: export_answers(store, file))
    click.echo(f"{counted(exported, ANSWERS)} in {file}.")


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_with_stores
def import_file(file: Path, stores: tuple[str, ...]) -> None:
    """Put the answers of FILE, made by 'export' or by 'serve --record', into the stores.

    The whole file is verified first. Whoever can write the file decides what clients are answered.
    """
    from service.recording.transfer import import_answers

    imported = on_stores(stores, lambda store: import_answers(store, file))
    click.echo(f"{counted(imported.stored, ANSWERS)} stored.")
    if imported.stored < imported.read:
        click.echo(
            f"{imported.read - imported.stored} others did not fit into the store: raise its max_bytes.", err=True
        )
    if imported.missed:
        click.echo(
            f"{counted(imported.missed, WRITES)} failed in one of the stores. 'anyclaude cache stats' shows which one "
            "is away or full. Import the file again when it works.",
            err=True,
        )


@command.command("get")
@click.argument("key")
@_with_answers
def get(key: str, held: HeldAnswers) -> None:
    """Print the answer that is stored under KEY, or under the only key that begins so, as JSON."""
    click.echo(json.dumps(held.get(whole_key(held, key)), indent=2))


@command.command("explain")
@click.argument("a", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("b", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--all", "show_all", is_flag=True, help="Show every difference, not only the first.")
@click.option("--tokens/--no-tokens", default=True, help="Compare the prompts by token too.  [default: --tokens]")
@config_option
def explain(a: Path, b: Path, show_all: bool, tokens: bool, config: str | None) -> None:
    """Show where two requests differ, to explain why B was a miss after A.

    A and B are JSON bodies of requests of OpenAI's or Anthropic's API, or files of ~/.anyclaude/traces.
    """
    from service.cli.explanation import explain_requests, read_request

    settings = read_configuration({"config": config}).settings
    click.echo(explain_requests(read_request(a), read_request(b), settings if tokens else None, show_all=show_all))


def _listed(answer: "ListedAnswer") -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(answer.stored_at))
    return (
        f"{answer.key:64}  {when}  {answer.bytes:>7}  {answer.usage.prompt_tokens} + {answer.usage.completion_tokens}"
    )


def _listed_json(answer: "ListedAnswer") -> str:
    line = {"key": answer.key, "stored_at": answer.stored_at, "bytes": answer.bytes, "ttl": answer.ttl}
    return json.dumps(line | {"usage": msgspec.to_builtins(answer.usage)})


def _describe(found: "BackendStats", indent: str = "") -> list[str]:
    from service.config.values import show_size

    parts = []
    if found.items is not None:
        parts.append(counted(found.items, ANSWERS) + (f" of at most {found.max_items}" if found.max_items else ""))
    if found.bytes is not None:
        most = f" of at most {show_size(found.max_bytes)}" if found.max_bytes else ""
        parts.append(f"{found.bytes:,} bytes{most}")
    lines = [f"{indent}{found.backend}: {', '.join(parts) or 'unknown'}"]
    for tier in found.tiers:
        lines += _describe(tier, indent + "  ")
    return lines
