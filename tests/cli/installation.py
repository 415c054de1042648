"""anyclaude as users install it: a wheel in an environment of its own. An editable installation hides import faults."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKED = ("service", "cache_backends", "pyproject.toml", "README.md", "LICENSE")


def install_wheel(folder: Path) -> Path:
    """The `anyclaude` script of a new environment below `folder`. Its dependencies are those of this environment, whose
    editable installation stays out: Python does not read the .pth files of a folder that a .pth file names."""
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    _pip("--python", str(python), "install", "--no-index", "--no-deps", str(build_wheel(folder)))
    packages = next((environment / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    return environment / "bin" / "anyclaude"


def build_wheel(folder: Path) -> Path:
    """From a copy: setuptools leaves its build folder in the project."""
    source, wheels = folder / "source", folder / "wheels"
    source.mkdir()
    for name in PACKED:
        path = PROJECT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(source))
    return next(wheels.glob("anyclaude-*.whl"))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL)
