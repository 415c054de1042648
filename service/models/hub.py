import errno
import hashlib
import os
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
from huggingface_hub.hf_api import RepoSibling
from tqdm.auto import tqdm

from service.models.errors import FetchFailed, InvalidModel, ModelNotThere
from service.models.folder import NEEDED, WEIGHTS, require_mlx_model
from service.models.progress import ProgressReport, watch_growth
from service.storage import locked, private_folder, publish_folder

# The files that mlx-lm reads, all in the top folder. None is Python code.
FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.jsonl", WEIGHTS]
NOT_FILES = ["*/*"]
FETCHES = 2
UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH)


def ensure_hub_model(name: str, home: Path, progress: ProgressReport) -> Path:
    """Returns the model's folder: under `home`, in Hugging Face's own cache, or fetched to `home`. An interrupted fetch
    continues. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE apply. Raises `ModelError`."""
    folder = home / "models" / name
    if os.path.exists(folder / "config.json"):
        return folder
    cached = _in_hub_cache(name)
    if cached is not None:
        return cached
    try:
        revision, files = _look_up(name)
        lock = folder.with_name(f".{folder.name}.lock")
        with locked(lock, lambda: progress.step(f"Another process fetches {name}: waiting")):
            if not (folder / "config.json").exists():
                workshop = _workshop(folder, revision)
                _fetch(name, revision, files, workshop, progress)
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


def _look_up(name: str) -> tuple[str, list[RepoSibling]]:
    """Returns the commit and its files to fetch. Raises `InvalidModel`."""
    with _explained(name):
        info = HfApi().model_info(name, files_metadata=True)
    files = [file for file in info.siblings or () if "/" not in file.rfilename]
    names = [file.rfilename for file in files]
    if not any(fnmatch(file, WEIGHTS) for file in names):
        weights = [file for file in names if file.endswith((".gguf", ".bin", ".safetensors", ".npz"))]
        raise InvalidModel(
            f"{name} on Hugging Face has no {WEIGHTS} (found: {weights[0] if weights else 'no weights'}): {NEEDED}. "
            "Look for a conversion under `mlx-community/`, or make one with mlx_lm.convert."
        )
    wanted = [file for file in files if any(fnmatch(file.rfilename, pattern) for pattern in FILES)]
    return info.sha or "main", wanted


def _fetch(name: str, revision: str, files: list[RepoSibling], folder: Path, progress: ProgressReport) -> None:
    size = sum(file.size or 0 for file in files)
    for _ in range(FETCHES):
        progress.step(f"Fetching {name} from Hugging Face ({size / 1e9:.2f} GB, once)")
        with _explained(name), watch_growth(folder, size, progress):
            _fetch_missing(name, revision, folder)
        progress.step("Comparing it with the digests that Hugging Face lists")
        # The client goes on with what is there. A power failure may have damaged that.
        damaged = [file.rfilename for file in files if not _is_as_listed(folder / file.rfilename, file)]
        if not damaged:
            return
        for file in damaged:
            progress.step(f"{file} is damaged: removed")
            (folder / file).unlink(missing_ok=True)
    raise FetchFailed(
        f"{damaged[0]} of {name} is not what Hugging Face lists, though it was fetched {FETCHES} times. A proxy or the "
        "server that HF_ENDPOINT names may change it. Start again without it, or give a folder."
    )


def _fetch_missing(name: str, revision: str, folder: Path) -> None:
    snapshot_download(
        name,
        revision=revision,
        local_dir=folder,
        allow_patterns=FILES,
        ignore_patterns=NOT_FILES,
        tqdm_class=_NoBar,
    )
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's records of the download


def _is_as_listed(path: Path, file: RepoSibling) -> bool:
    """A large file is listed with its SHA-256, a small one with git's hash. Some mirrors list the size alone."""
    if not path.is_file():
        return False
    with path.open("rb") as opened:
        if file.lfs:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.lfs.sha256
        if file.blob_id:
            blob = b"blob %d\0%b" % (path.stat().st_size, opened.read())
            return hashlib.sha1(blob, usedforsecurity=False).hexdigest() == file.blob_id
    return file.size in (None, path.stat().st_size)


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
