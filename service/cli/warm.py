import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from service.cli.client import HungUp, NoAnswer, NotOurs, Refused, ServerClient, server_required
from service.cli.configuration import read_configuration
from service.cli.exits import Exit, Failure
from service.cli.options import config_option, url_option
from service.request_files import NoRequest, RequestFile, read_request_file


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int = 0


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    prompt_tokens_details: _PromptDetails = _PromptDetails()
    input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    @property
    def prompt(self) -> int:
        ours = self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens
        return self.prompt_tokens + ours

    @property
    def known(self) -> int:
        return self.prompt_tokens_details.cached_tokens + self.cache_read_input_tokens


class _Answer(msgspec.Struct, frozen=True):
    usage: _Usage


@click.command("warm", short_help="Read the prompts of requests into the prefix cache.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--anthropic/--openai", "anthropic", default=None, help="The API of bodies that do not show it.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=3600.0, show_default=True, help="Seconds for one FILE."
)
@url_option
@config_option
def command(
    files: tuple[Path, ...], anthropic: bool | None, timeout: float, url: str | None, config: str | None
) -> None:
    """Have the running server read the prompt of each FILE and generate nothing. Requests that begin alike are then
    answered sooner.

    A FILE is a JSON body of a request of OpenAI's or Anthropic's API, or a file of ~/.anyclaude/traces. The setting
    'warm' in .anyclauderc.json does the same at every start.
    """
    settings = read_configuration({"base_url": url, "config": config}).settings
    client = ServerClient.of(settings)
    requests = [(path, _read(path, anthropic)) for path in files]  # all are read before the first is sent
    bar = click.progressbar(requests, label="Warming", file=sys.stderr, item_show_func=_name)
    with server_required(client), bar as progress:
        lines = [f"{path}: {_warm(client, request, path, timeout)}" for path, request in progress]
    click.echo("\n".join(lines))


def _name(item: tuple[Path, RequestFile] | None) -> str | None:
    return item[0].name if item is not None else None


def _read(path: Path, anthropic: bool | None) -> RequestFile:
    try:
        request = read_request_file(path)
    except NoRequest as exc:
        raise Failure(Exit.USAGE, str(exc)) from None
    except OSError as exc:
        raise Failure(Exit.USAGE, f"{path}: {exc.strerror}.") from None
    if not isinstance(request.body, dict):
        raise Failure(Exit.USAGE, f"{path}: expected an object, as the body of a request is, found something else.")
    return request if anthropic is None else RequestFile(request.body, anthropic)


def _warm(client: ServerClient, request: RequestFile, path: Path, timeout: float) -> str:
    root = client.address.root
    started = time.perf_counter()
    try:
        answered = client.post(request.path, msgspec.json.encode(_without_answer(request.body)), timeout)
        usage = msgspec.json.decode(answered, type=_Answer).usage
    except HungUp:
        raise Failure(Exit.UNAVAILABLE, f"{path}: {root} hung up before it answered. Its log shows why.") from None
    except NoAnswer:
        message = f"{path}: no answer from {root} within {timeout:g} seconds. Give it more with --timeout."
        raise Failure(Exit.UNAVAILABLE, message) from None
    except Refused as exc:
        raise Failure(Exit.FAILED, f"{path}: {exc}") from None
    except ValueError as exc:
        raise NotOurs(str(exc)) from None
    return f"{usage.prompt:,} tokens, {usage.known:,} of them known before, {time.perf_counter() - started:.1f} s"


def _without_answer(body: dict[str, Any]) -> dict[str, Any]:
    shaping = {name: value for name, value in body.items() if name not in ("max_completion_tokens", "stream_options")}
    return {**shaping, "max_tokens": 0, "stream": False} | ({"n": 1} if "n" in body else {})
