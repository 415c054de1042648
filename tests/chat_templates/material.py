"""Real chat templates, out of llama.cpp's collection in the source distribution of llama-cpp-python.

They are fetched once with pip into a cache folder, checked by their digest, and never part of this repository.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import msgspec

PACKAGE = "llama-cpp-python==0.3.36"
ARCHIVE = "llama_cpp_python-0.3.36.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
MEMBERS = re.compile(r"[^/]+/vendor/llama\.cpp/models/templates/([^/]+\.jinja)")
CACHE = Path(__file__).parents[1] / ".cache"
FETCH_SECONDS = 300

_SPECIAL = re.compile(
    r"<[|\uff5c][^<>|\uff5c\s'\"{}]{1,40}[|\uff5c]>"
    r"|</?(?:think|tool_call|tool_response|seed:\w+|mm:think|longcat_\w+)>"
    r"|\[/?(?:INST|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK|SYSTEM_PROMPT)\]"
)


class NotFetched(Exception):
    """pip could not fetch the package, as without a network."""


def ensure_templates() -> Path:
    """The folder of the templates. Raises NotFetched."""
    folder = CACHE / f"templates-{SHA256[:16]}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as place:
            archive = _fetch(Path(place))
            if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
                raise AssertionError(f"{ARCHIVE} is not the expected file")
            made = Path(place) / "templates"
            made.mkdir()
            _unpack(archive, made)
            made.rename(folder)
    return folder


def _fetch(place: Path) -> Path:
    """pip asks the package for its metadata, so its build backend has to be there, in an environment of its own."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    tools = place / "tools"
    commands = (
        [*pip, "install", "--target", str(tools), "scikit-build-core"],
        [*pip, "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", str(place), PACKAGE],
    )
    for command in commands:
        environment = {**os.environ, "PYTHONPATH": str(tools), "TMPDIR": str(place)}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=FETCH_SECONDS, check=False)
        if done.returncode != 0:
            raise NotFetched(done.stderr.decode(errors="replace").strip()[-500:])
    return place / ARCHIVE


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as members:
        for member in members:
            name = MEMBERS.fullmatch(member.name)
            file = members.extractfile(member) if name else None
            if name and file is not None:
                (folder / name[1]).write_bytes(file.read())


def write_folder(template: str, demo_model: Path, folder: Path) -> Path:
    """A model folder without weights: the demo model's special tokens and those of the template. All other tokens are
    single bytes, with which a tokenizer loads at once."""
    shutil.copy(demo_model / "config.json", folder)
    document = json.loads((demo_model / "tokenizer.json").read_text())
    special = [token["content"] for token in document["added_tokens"]]
    single = [token for token in document["model"]["vocab"] if len(token) == 1]
    own = sorted(set(_SPECIAL.findall(template)) - {*special, *single})
    vocabulary = {token: number for number, token in enumerate((*special, *single, *own))}
    document["model"] |= {"vocab": vocabulary, "merges": []}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    document["added_tokens"] += [{"id": vocabulary[token], "content": token, **flags} for token in own]
    (folder / "tokenizer.json").write_text(json.dumps(document))
    config = json.loads((demo_model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_bytes(msgspec.json.encode(config))
    (folder / "chat_template.jinja").write_text(template)
    return folder
