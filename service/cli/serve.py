import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from service.cli.configuration import read_configuration
from service.cli.exits import Exit, Failure
from service.cli.figures import ANSWERS, counted
from service.cli.options import config_option, setting_options
from service.config import Configuration, base_url, parse_base_url, server_address
from service.settings import Settings

if TYPE_CHECKING:
    from cache_backends.base import CacheBackend
    from service.app import Service
    from service.executor.base import Executor
    from service.executor.distributed.leader import Leader
    from service.executor.process.call_messages import EngineSpec


@click.command("serve", short_help="Serve a model in the foreground.")
@click.argument("model", required=False)
@setting_options
@config_option
@click.option("--distributed", is_flag=True, help="One model over several processes; started by mlx.launch.")
def command(flags: dict[str, object], model: str | None, config: str | None, distributed: bool) -> None:
    """Serve MODEL: a folder, a hub id or 'demo'. Without MODEL, serve the configured one, else the demo model.

    Stops on Ctrl-C or SIGTERM after running answers have ended.
    """
    run(read_configuration(flags | {"model": model, "config": config}), distributed=distributed)


def run(found: Configuration, *, distributed: bool = False) -> None:
    import asyncio
    import gc

    from service.cli.distributed import end_now, follow_rank_0, meet_others, own_rank
    from service.executor.distributed.leader import Leader
    from service.logs import configure
    from service.server.server import allow_many_files, serve

    settings = found.settings
    if found.origins["base_url"].kind == "environment" and not server_address(settings).local:
        here = f"{settings.host}:{settings.port}"
        click.echo(f"Note: VLLM_MLX_URL is for clients; this server listens on {here}.", err=True)
    rank = own_rank(settings) if distributed else None
    configure(settings, rank=rank)
    if rank is not None:
        meet_others()
    if rank:
        follow_rank_0(settings)
    leader = Leader() if distributed else None
    allow_many_files()
    with _listen(settings) as listener:
        host, port = listener.getsockname()[:2]
        settings = msgspec.structs.replace(settings, port=port, base_url=base_url(host, port))
        app, described = _app(settings, leader)
        _greet(settings, described)
        gc.freeze()  # else full collections scan all modules, at the cost of about 1 % of a hit
        asyncio.run(serve(app, settings, listener))
    if leader is not None:
        end_now(Exit.UNAVAILABLE if leader.lost else 0)


def _app(settings: Settings, leader: "Leader | None") -> "tuple[Service, str]":
    """Fetches a missing model outside of the event loop, where Ctrl-C works."""
    from service.app import create_app
    from service.recording.archive import ArchiveError

    try:
        if settings.replay is not None:
            executor, cache, described = _replay(settings, settings.replay)
        else:
            cache = _open_cache(settings)
            executor, described = _scripted(settings) if settings.executor == "scripted" else _mlx(settings, leader)
        alone = settings.replay is not None or settings.executor == "scripted"
        others = {} if alone else _others(settings, leader, executor.profile.id)
        app = create_app(settings, executor=executor, cache=cache, others=others)
    except ArchiveError as exc:
        raise Failure(Exit.CONFIG, str(exc)) from None
    except OSError as exc:
        if exc.filename != settings.record:
            raise
        raise Failure(Exit.CONFIG, f"{settings.record} cannot be written: {exc.strerror}.") from None
    return app, described


def _listen(settings: Settings) -> socket.socket:
    """Call it before anything slow, so that a used port is reported at once."""
    from service.server.server import AddressInUse, CannotListen, bind

    try:
        return bind(settings)
    except AddressInUse as exc:
        raise Failure(Exit.PORT_IN_USE, f"{exc.strerror}{_who_is_there(settings)}") from None
    except CannotListen as exc:
        raise Failure(Exit.CONFIG, str(exc.strerror)) from None


def _who_is_there(settings: Settings) -> str:
    from service.cli.client import ServerClient, Unusable

    address = parse_base_url(base_url(settings.host, settings.port))
    try:
        health = ServerClient(address, settings.api_key).health()
    except Unusable:
        return ""
    return (
        f" It is an anyclaude server, {health.status}, with the model {health.model}: "
        f"'VLLM_MLX_URL={address.root}/v1 anyclaude' uses it as it is."
    )


def _open_cache(settings: Settings) -> "CacheBackend":
    from cache_backends import open_backend
    from cache_backends.base import CacheUnavailable

    try:
        return open_backend(settings.cache)
    except CacheUnavailable as exc:
        raise Failure(Exit.UNAVAILABLE, f"{exc} Repair the store, or choose another with --cache.") from None


def _scripted(settings: Settings) -> "tuple[Executor, str]":
    from service.executor.scripted import ScriptedExecutor

    return ScriptedExecutor(concurrency=settings.most_running), "the scripted executor, which repeats the last message"


def _replay(settings: Settings, path: str) -> "tuple[Executor, CacheBackend, str]":
    from service.recording.player import RecordedAnswers, ReplayExecutor, read_recording

    if settings.record is not None:
        raise Failure(Exit.CONFIG, "expected one of --record and --replay, found both. Leave one of them out.")
    recording = read_recording(Path(path))
    described = (
        f"{counted(len(recording.answers), ANSWERS)} of {recording.profile.id}, recorded in {path}, and no model"
    )
    return ReplayExecutor(recording), RecordedAnswers(recording), described


def _mlx(settings: Settings, leader: "Leader | None") -> "tuple[Executor, str]":
    """The default model is `model`, or the first of `models` if that is not set."""
    from service.executor.mlx_executor import MlxExecutor
    from service.executor.process.engine_process import EngineProcess
    from service.model_registry.configured import settings_of

    name = None
    if settings.model is None and settings.models:
        name, model = next(iter(settings.models.items()))
        settings = settings_of(settings, model)
    spec = _spec(settings, name, distributed=leader is not None)
    described = spec.profile.id
    if settings.model is None:
        described += ", the demo model, because no model is configured (anyclaude serve MODEL)"
    if leader is not None:
        path = Path(spec.model_path)
        return MlxExecutor(path, spec.profile, spec.settings, load=leader.load, peers=leader), described
    return EngineProcess(spec), described


def _others(settings: Settings, leader: "Leader | None", default_id: str) -> "dict[str, Executor]":
    from service.executor.process.engine_process import EngineProcess
    from service.model_registry.configured import settings_of

    if settings.models and (leader is not None or settings.record is not None):
        option = "--distributed" if leader is not None else "--record"
        raise Failure(Exit.CONFIG, f"{option} serves one model: leave out 'models'.")
    models = list(settings.models.items())
    if settings.model is None:
        models = models[1:]  # the first is the default
    if default_id in dict(models):
        raise Failure(
            Exit.CONFIG,
            f"expected another name than '{default_id}' in 'models': it is the id of 'model'. Rename the entry.",
        )
    return {name: EngineProcess(_spec(settings_of(settings, model), name)) for name, model in models}


def _spec(settings: Settings, name: str | None, *, distributed: bool = False) -> "EngineSpec":
    """Fetches what is missing."""
    from service.cli.models import fetch_model, model_required
    from service.device.card import read_engines_device
    from service.executor.mlx_executor import open_mlx_executor
    from service.executor.process.call_messages import EngineSpec
    from service.models.folder import load_needs
    from service.models.profile import read_profile, read_properties

    with model_required(name):
        path = fetch_model(settings.model, settings.home)
        # An engine process reads the fingerprint itself, after the server listens.
        at_once = distributed or settings.record is not None
        profile = (read_profile if at_once else read_properties)(path, settings, home=settings.home)
        draft = None
        if settings.draft_model is not None and not distributed:
            draft = fetch_model(settings.draft_model, settings.home)
            settings = msgspec.structs.replace(settings, draft_model=str(draft))
        needs = load_needs(read_engines_device().kind, path, draft)
    if name is not None:
        profile = msgspec.structs.replace(profile, id=name, aliases=(*profile.aliases, profile.id))
    return EngineSpec(
        factory=f"{open_mlx_executor.__module__}:{open_mlx_executor.__name__}",
        profile=profile,
        settings=settings,
        model_path=str(path),
        needs=needs,
    )


def _greet(settings: Settings, described: str) -> None:
    root = settings.base_url.removesuffix("/v1")
    is_default = settings.port == Settings(home=settings.home).port
    command = "anyclaude" if is_default else f"VLLM_MLX_URL={settings.base_url} anyclaude"
    click.echo(f"Serving {described}\nat {root}. Next:")
    click.echo(f"  Claude Code, in another terminal, also while the model loads:  {command}")
