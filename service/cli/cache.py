"""`anyclaude cache`: shows, moves and empties the stores of the response cache, and explains misses."""

import json
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from service.cli.configuration import read_configuration
from service.cli.exits import Exit, Failure
from service.cli.figures import ANSWERS, counted
from service.cli.options import config_option
from service.cli.stores import ask_stores
from service.config.redaction import shown_url

if TYPE_CHECKING:
    from cache_backends.base import BackendStats, CacheBackend
    from service.response_cache.stored import Stored

T = TypeVar("T")


@click.group("cache", short_help="Look into the response cache, empty it, move it, explain a miss.")
def command() -> None:
    """Look after the response cache: the stores under 'cache' in .anyclauderc.json.

    A memory:// store lives inside the server: 'anyclaude stats' shows it, and a restart empties it.
    """


def _with_stores(function: Callable[..., None]) -> Callable[..., None]:
    """The command gets the stores of the options or the configuration as `stores`."""

    @click.option("--cache", "urls", multiple=True, metavar="URL", help="These stores instead of the configured ones.")
    @config_option
    @wraps(function)
    def run(*, urls: tuple[str, ...], config: str | None, **others: Any) -> None:
        function(stores=_configured(urls, config), **others)

    return run


def _configured(urls: tuple[str, ...], config: str | None) -> tuple[str, ...]:
    """The stores outside of the server. A memory store opened here would be a new, empty one."""
    settings = read_configuration({"cache": urls or None, "config": config}).settings
    shared = tuple(url for url in settings.cache if not url.startswith("memory:"))
    if not shared:
        raise Failure(
            Exit.FAILED,
            "The response cache is in the server's memory: 'anyclaude stats' shows it, and a restart empties it. "
            "To keep answers, add a store like disk:///path to 'cache' in .anyclauderc.json.",
        )
    return shared


@command.command("stats")
@_with_stores
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def stats(stores: tuple[str, ...], as_json: bool) -> None:
    """Show how many answers each store holds, and how large they are."""
    found = _on_stores(stores, lambda store: store.stats())
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        click.echo("\n".join(_describe(found)))


@command.command("clear")
@_with_stores
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(stores: tuple[str, ...], yes: bool) -> None:
    """Remove every answer from the stores."""
    if not yes:
        click.confirm(f"Remove every answer from {', '.join(map(shown_url, stores))}?", abort=True)
    click.echo(f"{counted(_on_stores(stores, lambda store: store.clear()), ANSWERS)} removed.")


@command.command("list")
@_with_stores
@click.option("--json", "as_json", is_flag=True, help="For programs: a line of JSON for each answer.")
def list_answers(stores: tuple[str, ...], as_json: bool) -> None:
    """Show a line for each stored answer. 'get KEY' shows the content."""
    from service.response_cache.stored import stored_answers

    async def show(store: "CacheBackend") -> None:
        if not as_json:
            click.echo(f"{'KEY':64}  {'STORED':20}  {'BYTES':>7}  TOKENS")
        async for stored in stored_answers(store):
            click.echo(_listed_json(stored) if as_json else _listed(stored))

    _on_stores(stores, show)


@command.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_with_stores
def export_file(file: Path, stores: tuple[str, ...]) -> None:
    """Write every answer to FILE, one line of JSON each. Only you can read the file. An existing FILE is replaced."""
    from service.recording.transfer import export_answers

    exported = _on_stores(stores, lambda store: export_answers(store, file))
    click.echo(f"{counted(exported, ANSWERS)} in {file}.")


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_with_stores
def import_file(file: Path, stores: tuple[str, ...]) -> None:
    """Put the answers of FILE, made by 'export' or by 'serve --record', into the stores.

    The whole file is verified first. Whoever can write the file decides what clients are answered.
    """
    from service.recording.transfer import import_answers

    imported = _on_stores(stores, lambda store: import_answers(store, file))
    click.echo(f"{counted(imported.stored, ANSWERS)} stored.")
    if imported.stored < imported.read:
        click.echo(
            f"{imported.read - imported.stored} others did not fit into the store: raise its max_bytes.", err=True
        )


@command.command("get")
@click.argument("key")
@_with_stores
def get(key: str, stores: tuple[str, ...]) -> None:
    """Print the answer that is stored under KEY, as JSON."""
    from service.response_cache.record import decode_record

    found = _on_stores(stores, lambda store: store.get(key))
    record = None if found is None else decode_record(found.value, key)
    if record is None:
        why = "nothing is stored" if found is None else "what is stored is no whole answer of this version"
        raise Failure(Exit.FAILED, f"{key}: {why}.")
    answer = {"stored_at": record.stored_at, "completion": msgspec.to_builtins(record.completion)}
    click.echo(json.dumps(answer, indent=2))


@command.command("explain")
@click.argument("a", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("b", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--all", "show_all", is_flag=True, help="Every place where they part, not only the first.")
@click.option("--tokens/--no-tokens", default=True, help="Compare the prompts by token too.  [default: --tokens]")
@config_option
def explain(a: Path, b: Path, show_all: bool, tokens: bool, config: str | None) -> None:
    """Show where two requests differ, so that B was a miss after A.

    A and B are JSON bodies of requests of OpenAI's or Anthropic's API, or files of ~/.anyclaude/traces.
    """
    from service.cli.explanation import explain_requests, read_request

    settings = read_configuration({"config": config}).settings
    click.echo(explain_requests(read_request(a), read_request(b), settings if tokens else None, show_all=show_all))


def _on_stores(urls: tuple[str, ...], ask: "Callable[[CacheBackend], Coroutine[Any, Any, T]]") -> T:
    from cache_backends import CacheUnavailable
    from service.recording.archive import ArchiveError
    from service.response_cache.stored import CannotList

    try:
        return ask_stores(urls, ask)
    except CacheUnavailable as exc:
        raise Failure(Exit.UNAVAILABLE, str(exc)) from None
    except (ArchiveError, CannotList) as exc:
        raise Failure(Exit.FAILED, str(exc)) from None
    except OSError as exc:
        raise Failure(Exit.FAILED, f"{exc.filename}: {exc.strerror}.") from None


def _listed(stored: "Stored") -> str:
    record = stored.record
    when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(record.stored_at))
    usage = record.completion.usage
    return f"{stored.key:64}  {when}  {stored.size:>7}  {usage.prompt_tokens} + {usage.completion_tokens}"


def _listed_json(stored: "Stored") -> str:
    line = {"key": stored.key, "stored_at": stored.record.stored_at, "bytes": stored.size, "ttl": stored.ttl}
    return json.dumps(line | {"usage": msgspec.to_builtins(stored.record.completion.usage)})


def _describe(found: "BackendStats", indent: str = "") -> list[str]:
    from service.config.values import show_size

    parts = []
    if found.items is not None:
        parts.append(counted(found.items, ANSWERS) + (f" of at most {found.max_items}" if found.max_items else ""))
    if found.bytes is not None:
        most = f" of at most {show_size(found.max_bytes)}" if found.max_bytes else ""
        parts.append(f"{found.bytes:,} bytes{most}")
    lines = [f"{indent}{found.backend}: {', '.join(parts) or 'does not tell'}"]
    for tier in found.tiers:
        lines += _describe(tier, indent + "  ")
    return lines
