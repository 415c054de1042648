import os
import re
import shutil
from collections.abc import Callable, Mapping
from glob import glob
from pathlib import Path

import msgspec

# Installers use these too. A shell has them on its PATH only after its next start.
OTHER_PLACES = (
    "~/.claude/local",
    "~/.local/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "~/.npm-global/bin",
    "~/.nvm/versions/node/*/bin",
    "~/.bun/bin",
)
LARGEST_OUTPUT_TOKENS = 32_000
SMALLEST_OUTPUT_TOKENS = 1_024


class AgentServer(msgspec.Struct, frozen=True, kw_only=True):
    """`root` is the URL without `/v1`. `context_length` is in tokens. `patience_seconds` covers waiting and the answer.
    `tiers` maps Claude's tiers (`haiku`) to models."""

    root: str
    api_key: str
    model: str
    context_length: int
    patience_seconds: float
    tiers: Mapping[str, str] = {}

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    @property
    def output_tokens(self) -> int:
        return min(max(self.context_length // 8, SMALLEST_OUTPUT_TOKENS), LARGEST_OUTPUT_TOKENS)


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """`folder` is private and temporary. `environ` and `arguments` are the user's."""

    server: AgentServer
    folder: Path
    environ: Mapping[str, str]
    arguments: tuple[str, ...] = ()


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """`arguments` precede the user's own. `files` go to the launch's folder, by name. The agent does not see `removed`
    variables."""

    variables: dict[str, str] = {}
    arguments: tuple[str, ...] = ()
    files: dict[str, str] = {}
    removed: tuple[str, ...] = ()


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The program of this `name` is searched on PATH and in `OTHER_PLACES`. `install` is a shell command."""

    name: str
    title: str
    install: str
    prepare: Callable[[Launch], Setup]

    @property
    def missing(self) -> str:
        return f"there is no '{self.name}' on PATH or where its installers put it"

    def find(self, environ: Mapping[str, str]) -> str | None:
        others = os.pathsep.join(found for place in OTHER_PLACES for found in _newest_first(os.path.expanduser(place)))
        return shutil.which(self.name, path=environ.get("PATH")) or shutil.which(self.name, path=others or "/")


def _newest_first(pattern: str) -> list[str]:
    return sorted(glob(pattern), key=lambda path: [int(number) for number in re.findall(r"\d+", path)], reverse=True)
