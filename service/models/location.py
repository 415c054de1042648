import os
from pathlib import Path

from service.models.demo import DEMO_MODEL, ensure_demo
from service.models.errors import ModelNotThere
from service.models.folder import require_mlx_model
from service.models.names import DEMO, HUB_NAME
from service.models.progress import ProgressReport
from service.models.recommended import nearest_ids


def resolve_model(name: str | None, home: Path, progress: ProgressReport) -> Path:
    """`name` is a folder, `demo` (also None), or a Hugging Face name; a folder wins. Fetches a missing model, which may
    take long. Raises `ModelError`."""
    if name is None or name == DEMO:
        return ensure_demo(home, progress)
    if not name:
        raise ModelNotThere("Expected a model: a folder, a Hugging Face name or 'demo'. Found an empty name.")
    folder = _as_folder(name)
    if HUB_NAME.fullmatch(name) and not os.path.exists(folder):
        from service.models.hub import ensure_hub_model  # its client takes a third of a second to import

        folder = ensure_hub_model(name, home, progress)
    elif "/" not in name and not os.path.exists(folder):
        raise ModelNotThere(_not_a_folder(name))
    require_mlx_model(folder)
    return Path(os.path.abspath(folder))  # symbolic links stay, because the operator's name is the model's id


def _as_folder(name: str) -> Path:
    # Unlike `Path`, `os.path` has no error for an unknown user, a name that is too long, or a loop of links.
    return Path(os.path.expanduser(name))


def _not_a_folder(name: str) -> str:
    nearest = nearest_ids(name)
    meant = f"Did you mean {' or '.join(nearest)}?" if nearest else "'anyclaude models recommend' lists some."
    return (
        f"Model path does not exist: {name}\n"
        f"{Path.cwd()} has no such folder. A model on Hugging Face is named ORGANISATION/NAME. {meant}"
    )


def find_local_model(name: str | None, home: Path) -> Path | None:
    """Returns the unchecked folder of a configured model; None if it would have to be fetched."""
    name = name or DEMO
    if name == DEMO:
        return _existing(home / "models" / DEMO_MODEL.name)
    folder = _as_folder(name)
    if os.path.exists(folder) or not HUB_NAME.fullmatch(name):
        return folder
    return _existing(home / "models" / name) or _in_hub_cache(name)


def _existing(folder: Path) -> Path | None:
    return folder if os.path.isfile(folder / "config.json") else None


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None
