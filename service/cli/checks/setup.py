import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from cache_backends import CacheUnavailable
from service.cli.checks import Result, device, failed, ok, warning
from service.cli.client import NoAnswer, NotOurs, NotThere, Refused, ServerClient, Unusable
from service.cli.configuration import left_out
from service.cli.stores import ask_stores
from service.config import Configuration
from service.config.keys import BACKEND, SETTING_KEYS
from service.config.redaction import shown_url
from service.config.values import show_size
from service.device.figures import DeviceFigures, DeviceKind
from service.device.memory import memory_in_words
from service.models.errors import ModelError
from service.models.folder import load_needs, read_config, read_json, require_mlx_model
from service.models.location import find_local_model
from service.models.profile import context_length
from service.settings import Settings
from service.storage import folder_bytes

NEEDED_FREE_BYTES = 1024**3
STORE_SECONDS = 5.0
LOCAL_SECONDS = 0.5


def configuration(found: Configuration) -> Result:
    sources = "; ".join(_sources(found)) or "the defaults are in force ('anyclaude config' prints them)"
    if found.unapproved is not None:
        advice = "'anyclaude config' shows them; 'anyclaude trust' approves the file."
        return warning("Configuration", f"{left_out(found.unapproved)} In force: {sources}", advice)
    return ok("Configuration", sources if found.files else f"no .anyclauderc.json; {sources}")


def _sources(found: Configuration) -> Iterator[str]:
    keys: dict[str, list[str]] = {str(path): [] for path in found.files}
    for key in SETTING_KEYS:
        if where := found.origins[key.field].where:
            keys.setdefault(where, []).append(key.dotted.removeprefix(".".join(BACKEND) + "."))
    for where, names in keys.items():
        yield f"{', '.join(names) or 'nothing'} from {where}"


def model(settings: Settings) -> Result:
    if settings.executor == "scripted":
        return ok("Model", "none is needed: the scripted executor is configured")
    advice = "Set another model in .anyclauderc.json, or with VLLM_MLX_MODEL."
    return _model("Model", settings.model, settings.home, advice)


def draft_model(settings: Settings) -> Result:
    return _model("Draft model", settings.draft_model, settings.home, "Correct draftModel in .anyclauderc.json.")


def _model(check: str, name: str | None, home: Path, advice: str) -> Result:
    shown, folder = name or "the demo model", find_local_model(name, home)
    if folder is None:
        fetched = "It is fetched at the first start. To do that now: anyclaude serve"
        return warning(check, f"{shown} is not on this machine yet", fetched)
    try:
        require_mlx_model(folder)
    except ModelError as exc:
        return failed(check, str(exc), advice)
    return ok(check, f"{shown} in {folder} ({folder_bytes(folder) / 1e9:.2f} GB)")


def memory(settings: Settings, figures: DeviceFigures) -> Result:
    """Asks the running server for its context, or estimates that of the configured model."""
    client = ServerClient.of(settings)
    with suppress(Unusable):
        health = client.health()
        if health.model_loaded:
            offered = f"the running server offers a context of {client.model().context_length:,} tokens"
            if health.max_concurrency is not None:
                offered += f", and runs up to {health.max_concurrency} sequences at a time"
            return ok("Memory", f"{memory_in_words(figures)}; {offered}")
    return device.memory(figures, needs_of(settings, figures.kind))


def needs_of(settings: Settings, kind: DeviceKind) -> device.ModelNeeds | None:
    """Returns None if the configured model is not here, or cannot be read."""
    folder = find_local_model(settings.model, settings.home)
    if folder is None or settings.executor == "scripted":
        return None
    draft = None if settings.draft_model is None else find_local_model(settings.draft_model, settings.home)
    try:
        needs = load_needs(kind, folder, draft)
        longest = context_length(read_config(folder), read_json(folder / "tokenizer_config.json"))
    except ModelError:
        return None  # the check of the model reports it
    return device.ModelNeeds(
        **msgspec.structs.asdict(needs), context_length=min(longest, settings.context_length or longest)
    )


def response_cache(settings: Settings) -> Result:
    shown = ", ".join(shown_url(url) for url in settings.cache)
    try:
        ask_stores(settings.cache, lambda store: store.get("anyclaude-doctor"), STORE_SECONDS)
    except (CacheUnavailable, TimeoutError) as exc:
        found = str(exc) or f"{shown} does not answer in time"
        return failed(
            "Response cache", found, "Answers come without it, only slower. Start the store, or choose another."
        )
    return ok("Response cache", f"{shown}, which stores {_policy(settings)}")


def port(settings: Settings) -> Result:
    result = _port(settings)
    # React Native's Metro listens on all addresses at 8081. macOS lets a server have 127.0.0.1 beside it.
    if result.status == "ok" and settings.host == "127.0.0.1" and _listens("::1", settings.port):
        found = f"{result.found}; something else listens at [::1]:{settings.port}, where 'localhost' may lead"
        return warning("Port", found, "Stop it, choose another port, or name 127.0.0.1 in clients.")
    return result


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=LOCAL_SECONDS).close()
    except OSError:
        return False
    return True


def _port(settings: Settings) -> Result:
    client = ServerClient.of(settings)
    address = client.address
    try:
        health = client.health()
    except NotThere:
        if address.local:
            return ok("Port", f"{settings.port} is free")
        found = f"no server answers at {address.root}"
        return failed("Port", found, "Start it there: none is started on another machine.")
    except (NoAnswer, Refused) as exc:
        return failed("Port", f"what runs at {address.root} gives no answer: {exc}", "Stop it, or choose another port.")
    except NotOurs as exc:
        return failed("Port", f"{address.root} is taken by something else: {exc}", "Stop it, or choose another port.")
    if health.status in ("healthy", "loading"):
        detail = f" ({health.detail})" if health.detail else ""
        return ok("Port", f"a server is at {address.root}: {health.status}, model {health.model}{detail}")
    advice = "Stop it and start it again; its log says more."
    return failed("Port", f"the server at {address.root} is {health.status}: {health.detail}", advice)


def disk_space(settings: Settings) -> Result:
    try:
        existing = next(path for path in (settings.home, *settings.home.parents) if path.exists())
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as exc:
        advice = "Make it writable, or name another place with ANYCLAUDE_HOME."
        return failed("Disk space", f"{settings.home} cannot be written: {exc.strerror}", advice)
    free = shutil.disk_usage(existing).free
    found = f"{free / 1e9:.1f} GB free for {settings.home}"
    if free < NEEDED_FREE_BYTES:
        return failed("Disk space", found, "Free some, or set ANYCLAUDE_HOME to a larger disk.")
    if free < settings.prefix_disk_bytes:
        advice = f"The prefix cache may grow to {show_size(settings.prefix_disk_bytes)}: set prefixCache.disk lower."
        return warning("Disk space", found, advice)
    return ok("Disk space", found)


def _policy(settings: Settings) -> str:
    return {
        "all": "every complete answer",
        "deterministic": "greedy or seeded answers",
        "off": "nothing (cachePolicy is off)",
    }[settings.cache_policy]
