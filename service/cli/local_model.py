"""Where the configured model lies on this machine, if it does. Nothing is fetched."""

from pathlib import Path

from service.models.demo import DEMO_MODEL
from service.models.location import DEMO, HUB_NAME
from service.settings import Settings


def find_local_model(settings: Settings) -> Path | None:
    """The folder, not yet looked into; None for a model that would have to be fetched."""
    name = settings.model or DEMO
    if name == DEMO:
        return _existing(settings.home / "models" / DEMO_MODEL.name)
    folder = Path(name).expanduser()
    if folder.exists() or not HUB_NAME.fullmatch(name):
        return folder
    return _existing(settings.home / "models" / name) or _in_hub_cache(name)


def _existing(folder: Path) -> Path | None:
    return folder if (folder / "config.json").is_file() else None


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None
