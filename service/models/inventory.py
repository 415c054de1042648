from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Literal

import msgspec

from service.models.demo import DEMO_MODEL
from service.models.errors import ModelError
from service.models.folder import require_mlx_model
from service.models.names import DEMO
from service.storage import folder_bytes

ModelSource = Literal["anyclaude", "Hugging Face", "LM Studio"]
LM_STUDIO = (".lmstudio/models", ".cache/lm-studio/models")


class InstalledModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: Path
    size_bytes: int
    source: ModelSource


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
    """Searches at most two levels down. Hidden folders are unfinished downloads."""
    return sorted([*_parents(place, "*/config.json"), *_parents(place, "*/*/config.json")])


def _hub_folders() -> list[Path]:
    from huggingface_hub.constants import HF_HUB_CACHE

    return sorted(_parents(Path(HF_HUB_CACHE), "models--*--*/snapshots/*/config.json"))


def _parents(place: Path, pattern: str) -> Iterator[Path]:
    # `Path.glob` raises for a folder that vanishes meanwhile.
    return ((place / found).parent for found in glob(pattern, root_dir=place))


def _installed(name: str, folder: Path, source: ModelSource) -> Iterator[InstalledModel]:
    try:
        require_mlx_model(folder)
    except ModelError:  # a model of another kind, or one in removal
        return
    yield InstalledModel(name=name, path=folder, size_bytes=folder_bytes(folder), source=source)
