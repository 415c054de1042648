import errno
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from tqdm.auto import tqdm

from service.models.errors import FetchFailed, InvalidModel, ModelNotThere
from service.models.folder import NEEDED, WEIGHTS, require_mlx_model
from service.models.progress import ProgressReport, watch_growth
from service.storage import locked, private_folder, publish_folder

# The files that mlx-lm reads, all in the top folder. None is Python code.
FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.jsonl", WEIGHTS]
NOT_FILES = ["*/*"]
UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH)


def ensure_hub_model(name: str, home: Path, progress: ProgressReport) -> Path:
    """Returns the model's folder: under `home`, in Hugging Face's own cache, or fetched to `home`. An interrupted fetch
    continues. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE apply. Raises `ModelError`."""
    folder = home / "models" / name
    if (folder / "config.json").exists():
        return folder
    cached = _in_hub_cache(name)
    if cached is not None:
        return cached
    try:
        revision, size = _look_up(name)
        lock = folder.with_name(f".{folder.name}.lock")
        with locked(lock, lambda: progress.step(f"Another process fetches {name}: waiting")):
            if not (folder / "config.json").exists():
                progress.step(f"Fetching {name} from Hugging Face ({size / 1e9:.2f} GB, once)")
                workshop = _workshop(folder, revision)
                with _explained(name), watch_growth(workshop, size, progress):
                    _fetch(name, revision, workshop)
                require_mlx_model(workshop)
                publish_folder(workshop, folder)
    finally:
        progress.finish()
    return folder


def _in_hub_cache(name: str) -> Path | None:
    try:
        found = snapshot_download(name, local_files_only=True, allow_patterns=FILES, ignore_patterns=NOT_FILES)
        require_mlx_model(Path(found))
    except (LocalEntryNotFoundError, HFValidationError, InvalidModel):
        return None
    return Path(found)


def _workshop(folder: Path, revision: str) -> Path:
    """Removes the unfinished folders of other revisions."""
    workshop = folder.with_name(f".{folder.name}.{revision}.partial")
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        if leftover != workshop:
            shutil.rmtree(leftover, ignore_errors=True)
    return private_folder(workshop)


def _look_up(name: str) -> tuple[str, int]:
    """Returns the commit to fetch and its size in bytes. Raises `InvalidModel`."""
    with _explained(name):
        info = HfApi().model_info(name, files_metadata=True)
    files = {file.rfilename: file.size or 0 for file in info.siblings or () if "/" not in file.rfilename}
    if not any(fnmatch(file, WEIGHTS) for file in files):
        weights = [file for file in files if file.endswith((".gguf", ".bin", ".safetensors", ".npz"))]
        raise InvalidModel(
            f"{name} on Hugging Face has no {WEIGHTS} (found: {weights[0] if weights else 'no weights'}): {NEEDED}. "
            "Look for a conversion under `mlx-community/`, or make one with mlx_lm.convert."
        )
    wanted = (size for file, size in files.items() if any(fnmatch(file, pattern) for pattern in FILES))
    return info.sha or "main", sum(wanted)


def _fetch(name: str, revision: str, folder: Path) -> None:
    snapshot_download(
        name,
        revision=revision,
        local_dir=folder,
        allow_patterns=FILES,
        ignore_patterns=NOT_FILES,
        tqdm_class=_NoBar,
    )
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's records of the download


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as exc:
        raise FetchFailed(
            f"{name} is gated: accept its conditions on its Hugging Face page, then set HF_TOKEN and start again."
        ) from exc
    except RepositoryNotFoundError as exc:
        raise ModelNotThere(
            f"Model path does not exist: {name}\nHugging Face has no model of this name that you may read "
            "(for a private one, set HF_TOKEN)."
        ) from exc
    except Exception as exc:  # any exception of its HTTP library, which it has changed twice
        raise FetchFailed(
            f"Model path does not exist: {name}\n{_unreachable(name) if _is_offline(exc) else _failed(exc)}"
        ) from exc


def _is_offline(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return True
        if isinstance(error, OSError) and error.errno in UNREACHABLE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _unreachable(name: str) -> str:
    return (
        f"{name} is not on this machine, and Hugging Face cannot be reached. Connect to the network and start again: a "
        "download that has begun continues. Or give a folder."
    )


def _failed(error: Exception) -> str:
    return f"Fetching it from Hugging Face failed: {error}\nStart again to continue the download, or give a folder."


class _NoBar(tqdm):  # type: ignore[misc]
    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **{**options, "disable": True})
