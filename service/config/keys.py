"""The keys of `.anyclauderc.json`."""

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import msgspec.inspect

from service.settings import Harmless, Settings

BACKEND = ("backends", "vllm-mlx")
_ELSEWHERE = {
    "home": ("home",),
    "debug_level": ("debug", "level"),
    "log_format": ("debug", "logFormat"),
    "trace_max_bytes": ("debug", "traces"),
    "prefix_memory_bytes": (*BACKEND, "prefixCache", "memory"),
    "prefix_disk_bytes": (*BACKEND, "prefixCache", "disk"),
}


_OPTIONS = {"debug_level": "debug"}
HOME = "~/.anyclaude"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """`path` leads to the value in the file, `field` to the one in `Settings` (`sampling.top_p`). An empty `field` sets
    nothing. `kind` is its type with msgspec's bounds."""

    path: tuple[str, ...]
    field: str = ""
    kind: Any
    default: Any = None

    @property
    def dotted(self) -> str:
        return ".".join(self.path)

    @property
    def is_size(self) -> bool:
        return self.field.endswith("_bytes")

    @property
    def secret(self) -> bool:
        return self.field == "api_key"

    @property
    def description(self) -> str:
        return str(msgspec.json.schema(self.kind)["description"])

    @property
    def harmless(self) -> Harmless:
        """The rule for the working folder's file. A field without one needs approval."""
        return Harmless(self._marks().get("harmless", Harmless.NONE))

    @property
    def option(self) -> str | None:
        """The option of `anyclaude serve`, such as `--max-queue`, or None."""
        if not self._marks().get("option", False):
            return None
        name = _OPTIONS.get(self.field) or self.field.rpartition(".")[2].removesuffix("_bytes").replace("_", "-")
        return f"--{name}"

    def _marks(self) -> dict[str, Any]:
        info = msgspec.inspect.type_info(self.kind)
        return (info.extra or {}) if isinstance(info, msgspec.inspect.Metadata) else {}


Tree: TypeAlias = "dict[str, Key | Tree]"


def _field_keys(struct: type[msgspec.Struct], folder: tuple[str, ...], prefix: str = "") -> Iterator[Key]:
    for field in msgspec.structs.fields(struct):
        path = _ELSEWHERE.get(field.name, (*folder, _camel_case(field.name)))
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _field_keys(field.type, path, f"{prefix}{field.name}.")
        else:
            default = None if field.default is msgspec.NODEFAULT else field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            kind = field.type
            if field.name == "home":
                default, kind = HOME, Annotated[(str, *field.type.__metadata__)]
            yield Key(path=path, field=prefix + field.name, kind=kind, default=default)


def _camel_case(name: str) -> str:
    first, *rest = name.removesuffix("_bytes").split("_")
    return first + "".join(word.capitalize() for word in rest)


def _tree(keys: tuple[Key, ...]) -> Tree:
    root: Tree = {}
    for key in keys:
        branch = root
        for name in key.path[:-1]:
            below = branch.setdefault(name, {})
            assert isinstance(below, dict)  # noqa: S101 - two fields with one key: a defect of this table
            branch = below
        branch[key.path[-1]] = key
    return root


_Enabled = Annotated[bool, msgspec.Meta(description="Must be true: there is no other backend.")]
_Backend = Annotated[Literal["vllm-mlx"], msgspec.Meta(description="The backend to run.")]
_Schema = Annotated[str, msgspec.Meta(description="Names the JSON Schema, for editors.")]

FILE_KEYS = (
    Key(path=("$schema",), kind=_Schema),
    Key(path=("backend",), kind=_Backend, default="vllm-mlx"),
    Key(path=(*BACKEND, "enabled"), kind=_Enabled, default=True),
)
SETTING_KEYS = tuple(_field_keys(Settings, BACKEND))
KEY_TREE = _tree(FILE_KEYS + SETTING_KEYS)


def did_you_mean(name: str, known: Iterator[str] | list[str]) -> str:
    known = sorted(known)
    plain = {re.sub(r"[^a-z0-9]", "", candidate.lower()): candidate for candidate in known}
    near = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", name.lower()), plain, n=1, cutoff=0.6)
    if near:
        return f'Did you mean "{plain[near[0]]}"?'
    return "Known here: " + ", ".join(known) + "."
