import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import click

from service.cli.client import ChatChunk, Refused, ServerClient, server_required
from service.cli.configuration import read_configuration
from service.cli.figures import count, duration
from service.cli.launch import on_server, serve_arguments, served_model
from service.cli.options import config_option

HELP = """/clear   forget the conversation
/system TEXT   set instructions, and forget the conversation
/model   show the model
/bye   leave; Ctrl-D does the same
Ctrl-C stops an answer."""


@click.command("run", short_help="Chat with a model in the terminal.")
@click.argument("model", required=False)
@click.argument("prompt", nargs=-1)
@config_option
def command(model: str | None, prompt: tuple[str, ...], config: str | None) -> None:
    """Chat with MODEL: a folder, a hub id or 'demo'; else with the configured model, or the one that is served.

    With PROMPT, or with a prompt on the standard input, print one answer and end. The server is started if it does
    not run, and stopped again.
    """
    settings = read_configuration({"model": model, "config": config}).settings
    client = ServerClient.of(settings)
    with on_server(settings, client, serve_arguments(model, config)):
        chat = Chat(client, served_model(client).id)
        with server_required(client):
            if prompt or not sys.stdin.isatty():
                chat.ask(" ".join(prompt) or sys.stdin.read())
            else:
                chat.converse()


class Chat:
    """Answers go to stdout, everything else to stderr."""

    def __init__(self, client: ServerClient, model: str) -> None:
        self._client = client
        self._model = model
        self._messages: list[dict[str, str]] = []
        self._usage: ChatChunk | None = None

    def converse(self) -> None:
        with suppress(ImportError):
            import readline  # noqa: F401 - gives input() its line editing and history
        click.echo(f"Chat with {self._model}. /help lists the commands.", err=True)
        while True:
            try:
                line = input(">>> ").strip()
            except (EOFError, KeyboardInterrupt):
                click.echo(err=True)
                return
            if line in ("/bye", "/exit", "/quit"):
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._answer(line)

    def ask(self, text: str) -> None:
        """Prints one answer. Raises like `ServerClient.chat`."""
        for part in self._parts(text):
            click.echo(part, nl=False)
        click.echo()

    def _answer(self, text: str) -> None:
        """An answer that Ctrl-C stops stays in the conversation up to there."""
        started = time.perf_counter()
        try:
            self.ask(text)
        except KeyboardInterrupt:
            click.echo(" [stopped]", err=True)
        except Refused as exc:
            del self._messages[-1:]
            click.echo(f"Error: {exc}", err=True)
        else:
            click.secho(f"[{self._figures(time.perf_counter() - started)}]", dim=True, err=True)

    def _parts(self, text: str) -> Iterator[str]:
        self._messages.append({"role": "user", "content": text})
        answer = ""
        self._usage = None
        try:
            for chunk in self._client.chat(self._messages):
                if chunk.usage is not None:
                    self._usage = chunk
                for choice in chunk.choices:
                    answer += choice.delta.content or ""
                    yield choice.delta.content or ""
        finally:
            if answer:
                self._messages.append({"role": "assistant", "content": answer})

    def _figures(self, seconds: float) -> str:
        outcome = self._client.last_outcome
        usage = self._usage.usage if self._usage is not None else None
        if usage is None:
            return duration(seconds)
        reused = usage.prompt_tokens_details.cached_tokens
        speed = f", {usage.completion_tokens / seconds:.1f} tokens/s" if outcome != "hit" else ""
        prompt = f"{count(reused)} of {count(usage.prompt_tokens)} prompt tokens reused"
        return f"{outcome or 'miss'}, {duration(seconds)}, {count(usage.completion_tokens)} tokens{speed}, {prompt}"

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if name == "/clear":
            self._messages = [m for m in self._messages if m["role"] == "system"]
        elif name == "/system" and rest:
            self._messages = [{"role": "system", "content": rest.strip()}]
        elif name == "/model":
            click.echo(self._model, err=True)
        else:
            click.echo(HELP, err=True)
