import click
import msgspec

from service.cli.client import ServerClient, server_required
from service.cli.configuration import read_configuration
from service.cli.figures import ANSWERS, count, counted, duration, size
from service.cli.launch import on_server, serve_arguments
from service.cli.measurement import Measurement, measure
from service.cli.options import config_option
from service.keep_awake import kept_awake


@click.command("bench", short_help="Measure the speed of the server in about two minutes.")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@config_option
def command(model: str | None, as_json: bool, config: str | None) -> None:
    """Measure a prompt of 4,000 tokens cold and warm, one answer alone and four at once, and a hit.

    MODEL is a folder, a hub id or 'demo'; else the configured model, or the one that is served. The server is started
    if it does not run, and stopped again.
    """
    settings = read_configuration({"model": model, "config": config}).settings
    client = ServerClient.of(settings)
    with on_server(settings, client, serve_arguments(model, config)), kept_awake(settings), server_required(client):
        measured = measure(client, lambda step: click.echo(f"{step} ...", err=True))
    click.echo(msgspec.json.format(msgspec.json.encode(measured)).decode() if as_json else "\n".join(table(measured)))


def table(measured: Measurement) -> list[str]:
    known = f"{count(measured.warm_cached_tokens)} tokens known"
    memory = "-" if measured.peak_memory_bytes is None else f"{size(measured.peak_memory_bytes)} at most"
    rows = {
        "prompt, cold": f"{count(measured.prompt_tokens)} tokens in {duration(measured.cold_seconds)}, "
        f"{measured.read_rate:,.0f} a second",
        "the same, warm": f"{duration(measured.warm_seconds)}, {known}",
        "answer, alone": f"{measured.write_rate_alone:,.1f} tokens a second",
        "four at once": f"{measured.write_rate_four_at_once:,.1f} tokens a second in all",
        "hit": duration(measured.hit_seconds),
        "context": f"{count(measured.context_length)} tokens",
        "memory of MLX": memory,
        "chosen": _choices(measured),
    }
    return [f"{name:16}{value}" for name, value in rows.items()]


def _choices(measured: Measurement) -> str:
    places = f"{counted(measured.places, ANSWERS)} at a time"
    if (tuning := measured.tuning) is None:
        return places
    chunks = f"tokens of a chunk {count(tuning.chunk_tokens)}, lanes {tuning.lanes}"
    guesses = ", ".join(f"{tokens} ({drafter})" for drafter, tokens in tuning.guesses.items()) or "not measured"
    disk = "nothing" if tuning.file_tokens is None else f"{count(tuning.file_tokens)} tokens or more"
    return f"{places}; {chunks}; guesses {guesses}; on disk {disk}"
