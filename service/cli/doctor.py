import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

from service.cli.checks import Result, device, failed, machine, setup
from service.cli.configuration import read_configuration
from service.cli.exits import Exit
from service.cli.options import config_option
from service.config import ConfigError, load_configuration
from service.settings import Settings

MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "failed": ("failed", "red")}


@click.command("doctor", short_help="Check what is needed, and say what to do about what is missing.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--report", type=click.Path(dir_okay=False, writable=True), help="Measure, and write a file for an issue."
)
@config_option
def command(as_json: bool, report: str | None, config: str | None) -> None:
    """Check Python, MLX and its device, BLAS, Claude Code, configuration, model, memory, response cache, port and disk
    space. --report also measures the model for two minutes ('anyclaude bench') and writes figures and versions, but
    no content, path or address.

    Exits with 1 if a check failed; a warning is not a failure.
    """
    results = []
    for result in run_checks(config):
        results.append(result)
        if not as_json:
            _print(result)
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(result) for result in results], indent=2))
    if report is not None:
        _write_report(Path(report), config, results)
    if any(result.status == "failed" for result in results):
        sys.exit(Exit.FAILED)


def _write_report(file: Path, config: str | None, results: list[Result]) -> None:
    from service.cli.report import make_report

    settings = read_configuration({"config": config}).settings
    made = make_report(settings, config, results, lambda step: click.echo(f"{step} ...", err=True))
    file.write_bytes(msgspec.json.format(msgspec.json.encode(made)) + b"\n")
    click.echo(f"{file} is written. Look through it before you attach it.", err=True)


def run_checks(config: str | None) -> Iterator[Result]:
    """Yields each result when its check is done. `config` replaces the usual files."""
    yield machine.python()
    mlx, figures = machine.mlx()
    yield mlx
    if (mac := device.read_mac()) is not None:
        yield device.mac(mac, figures.name if figures is not None else "", device.reinstall_wheel())
    yield from (machine.blas(), machine.claude_code())
    try:
        found = load_configuration({"config": config}, os.environ, Path.cwd(), Path.home())
    except ConfigError as exc:
        yield failed("Configuration", str(exc), "Correct it; the checks that need it were left out.")
        return
    settings = found.settings
    yield setup.configuration(found)
    checks: list[Callable[[Settings], Result]] = [setup.model]
    if settings.draft_model is not None:
        checks.append(setup.draft_model)
    if figures is not None:
        checks.append(lambda settings: setup.memory(settings, figures))
    checks += [setup.response_cache, setup.port, setup.disk_space]
    yield from (check(settings) for check in checks)


def _print(result: Result) -> None:
    mark, color = MARKS[result.status]
    found = _indented(f"{result.name}: {result.found}", " " * 9)
    click.echo(f"{click.style(f'{mark:>7}', fg=color)}  {found}")
    if result.advice:
        click.echo(f"         -> {_indented(result.advice, ' ' * 12)}")


def _indented(text: str, indent: str) -> str:
    """Wraps only in a terminal."""
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False).lstrip()
