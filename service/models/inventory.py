from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from service.models.demo import DEMO_MODEL
from service.models.errors import ModelError
from service.models.folder import require_mlx_model
from service.models.names import DEMO

Source = Literal["anyclaude", "Hugging Face", "LM Studio"]
LM_STUDIO = (".lmstudio/models", ".cache/lm-studio/models")


class InstalledModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: Path
    size_bytes: int
    source: Source


def installed_models(home: Path, user_home: Path) -> Iterator[InstalledModel]:
    """`home` is ours, `user_home` the user's. Reads headers, never weights."""
    ours = home / "models"
    for folder in _folders(ours):
        name = DEMO if folder.name == DEMO_MODEL.name and folder.parent == ours else folder.relative_to(ours).as_posix()
        yield from _installed(name, folder, "anyclaude")
    for folder in _hub_folders():
        yield from _installed(
            folder.parents[1].name.removeprefix("models--").replace("--", "/", 1), folder, "Hugging Face"
        )
    for place in LM_STUDIO:
        for folder in _folders(user_home / place):
            yield from _installed(str(folder), folder, "LM Studio")


def _folders(place: Path) -> list[Path]:
    """At most two levels down. Hidden folders are unfinished downloads."""
    found = [*place.glob("*/config.json"), *place.glob("*/*/config.json")]
    return sorted(file.parent for file in found if not any(p.startswith(".") for p in file.relative_to(place).parts))


def _hub_folders() -> list[Path]:
    from huggingface_hub.constants import HF_HUB_CACHE

    return sorted(file.parent for file in Path(HF_HUB_CACHE).glob("models--*--*/snapshots/*/config.json"))


def _installed(name: str, folder: Path, source: Source) -> Iterator[InstalledModel]:
    try:
        require_mlx_model(folder)
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    except (ModelError, OSError):  # a model of another kind, or one in removal
        return
    yield InstalledModel(name=name, path=folder, size_bytes=size, source=source)
