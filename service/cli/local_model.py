"""Where a configured model lies on this machine, if it does. Nothing is fetched."""

from pathlib import Path

from service.models.demo import DEMO_MODEL
from service.models.names import DEMO, HUB_NAME


def find_local_model(name: str | None, home: Path) -> Path | None:
    """The folder of a model as `name` stands in the configuration, not yet looked into; None where it would have to be
    fetched."""
    name = name or DEMO
    if name == DEMO:
        return _existing(home / "models" / DEMO_MODEL.name)
    folder = Path(name).expanduser()
    if folder.exists() or not HUB_NAME.fullmatch(name):
        return folder
    return _existing(home / "models" / name) or _in_hub_cache(name)


def _existing(folder: Path) -> Path | None:
    return folder if (folder / "config.json").is_file() else None


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None
