"""anyclaude as users install it: a wheel in an environment of its own. An editable installation hides import faults."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PROJECT = Path(__file__).parents[2]
# Of this environment. Its .pth files would add the source's folder.
LEFT_OUT = ("anyclaude", "pip", "__editable__", "__pycache__")
PACKED = ("service", "cache_backends", "pyproject.toml", "README.md", "LICENSE")


def install_wheel(folder: Path) -> Path:
    """The `anyclaude` script of a new environment below `folder`, which has no pip. Its dependencies are those of this
    environment."""
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    _pip("--python", str(python), "install", "--no-index", "--no-deps", str(build_wheel(folder)))
    packages = next((environment / "lib").glob("python*/site-packages"))
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith(LEFT_OUT) and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
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
