"""buildah with its storage in a folder, and a base image made of Debian's packages instead of a registry's."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.programs import require

BASE = "docker.io/library/python:3.11-slim-bookworm"
CACHE = Path(__file__).parents[1] / ".cache" / "container-base"
PACKAGES = ("python3", "python3-venv", "python-is-python3", "ca-certificates")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
ALONE = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""Starts a program in a network of its own, where the image's port is free."""


def require_namespaces() -> None:
    """Skips a test if this machine cannot build images without a daemon."""
    for program in ("buildah", "debootstrap", "nsenter", "curl"):
        require(program)
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    done = subprocess.run([*ALONE, "unshare", "--mount", "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the kernel allows no namespaces: {done.stderr.strip()}")


def make_base() -> Path:
    """Returns the files of a Debian with Python, which are kept between runs."""
    if not CACHE.exists():
        draft = CACHE.with_suffix(".partial")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        included = f"--include={','.join(PACKAGES)}"
        _run(require("debootstrap"), "--variant=minbase", included, "bookworm", str(draft))
        # pip trusts whom this machine trusts, as behind a proxy of a company.
        if CERTIFICATES.exists():
            shutil.copy(CERTIFICATES, draft / CERTIFICATES.relative_to("/"))
            (draft / "etc" / "pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n")
        draft.rename(CACHE)
    return CACHE


class Buildah:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.command = [require("buildah"), "--root", str(folder / "images"), "--runroot", str(folder / "run")]
        self.command += ["--storage-driver", "vfs"]

    def build(self, context: Path, name: str) -> None:
        container = self("from", "scratch")
        self("add", "--quiet", container, str(make_base()), "/")
        self("commit", "--quiet", container, BASE)
        self("rm", container)
        # Docker's format has health checks. Debian's buildah does not know the interval at the start.
        file = self._folder / "Dockerfile"
        file.write_text((context / "Dockerfile").read_text().replace(" --start-interval=2s", ""))
        options = ("--isolation=chroot", "--pull=never", "--format=docker", f"--file={file}", f"--tag={name}")
        self("build", *options, str(context))

    def settings(self, container: str) -> dict[str, Any]:
        """Returns `config` as `docker inspect` shows it."""
        settings: dict[str, Any] = json.loads(self("inspect", container))["Docker"]["config"]
        return settings

    def inside(self, container: str, *command: str) -> list[str]:
        """Returns the arguments that run a command in the container, as its user."""
        return [*self.command, "run", "--isolation=chroot", container, "--", *command]

    def __call__(self, *arguments: str) -> str:
        return _run(*self.command, *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()
