import os
from pathlib import Path
from typing import Any

import msgspec

from service.device.figures import DeviceKind
from service.device.kv_estimate import bytes_per_token
from service.device.memory import LoadNeeds
from service.models.errors import InvalidModel, ModelNotThere
from service.storage import open_regular

NEEDED = "an MLX model is a folder with config.json, model*.safetensors and a tokenizer"
WEIGHTS = "model*.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "*.tiktoken", "tokenizer.jsonl", "tekken.json")
GIT_LFS_POINTER = b"version https://git-lfs"
MAX_HEADER_BYTES = 100_000_000


class TensorInfo(msgspec.Struct):
    data_offsets: tuple[int, int]


class ShardIndex(msgspec.Struct):
    """`model.safetensors.index.json`: the file of each tensor."""

    weight_map: dict[str, str]


def require_mlx_model(path: Path) -> None:
    """Reads names, sizes and headers, never weights. Raises `ModelNotThere` or `InvalidModel`."""
    try:
        _require_mlx_model(path)
    except OSError as exc:  # of a model that is being removed, for example
        raise InvalidModel(f"{path} cannot be read: {exc}.") from exc


def stat_weights(folder: Path) -> list[os.stat_result]:
    """Raises `InvalidModel` if there are none."""
    try:
        found = [file.stat() for file in folder.glob(WEIGHTS)]
        if not found:
            raise InvalidModel(_no_weights(folder))
    except OSError as exc:
        raise InvalidModel(f"The weights of {folder} cannot be read: {exc}.") from exc
    return found


def load_needs(kind: DeviceKind, model: Path, draft: Path | None = None) -> LoadNeeds:
    """Raises `InvalidModel`."""
    folders = [model] if draft is None else [model, draft]
    return LoadNeeds(
        weight_bytes=sum(status.st_size for folder in folders for status in stat_weights(folder)),
        token_bytes=sum(bytes_per_token(read_config(folder), kind) for folder in folders),
    )


def _require_mlx_model(path: Path) -> None:
    if not path.exists():
        raise ModelNotThere(f"Model path does not exist: {path}")
    if not path.is_dir():
        raise InvalidModel(_not_a_folder(path))
    weights = sorted(path.glob(WEIGHTS))
    if not weights:
        raise InvalidModel(_no_weights(path))
    read_config(path)
    _require_all_shards(path)
    for file in weights:
        _require_whole(file)
    if not any(next(path.glob(pattern), None) for pattern in TOKENIZERS):
        raise InvalidModel(f"{path} has weights but no tokenizer (tokenizer.json): {NEEDED}.")


def read_config(folder: Path) -> dict[str, Any]:
    """Raises `InvalidModel`."""
    file = folder / "config.json"
    config = read_json(file, required=True)
    if not isinstance(config.get("model_type"), str):
        raise InvalidModel(f'Expected {file} to name its architecture in "model_type", found none: {NEEDED}.')
    return config


def read_json(file: Path, *, required: bool = False) -> dict[str, Any]:
    """Returns {} if the file is missing and not `required`. Raises `InvalidModel`."""
    try:
        with open_regular(file) as opened:
            return msgspec.json.decode(opened.read(), type=dict[str, Any])
    except FileNotFoundError:
        if required:
            raise InvalidModel(f"{file.parent} has no {file.name}: {NEEDED}.") from None
        return {}
    except OSError as exc:
        raise InvalidModel(f"{file} cannot be read: {exc.strerror}.") from exc
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidModel(f"Expected {file} to hold one JSON object: {exc}.") from exc


def _not_a_folder(path: Path) -> str:
    if path.suffix.lower() != ".gguf":
        return f"{path} is a file: {NEEDED}. Give the folder."
    return f"{path} is a GGUF file: {NEEDED}. {_convert('ORGANISATION/MODEL')}"


def _no_weights(path: Path) -> str:
    gguf, pytorch, other = (
        sorted(file.name for pattern in patterns for file in path.glob(pattern))
        for patterns in (["*.gguf", "*.GGUF"], ["*.bin", "*.pt", "*.pth"], ["*.safetensors", "*.npz"])
    )
    if pytorch:
        return (
            f"{path} holds PyTorch weights ({pytorch[0]}): {NEEDED}. Write them as safetensors first (transformers: "
            f"`AutoModelForCausalLM.from_pretrained(PATH).save_pretrained(NEW)`). {_convert('NEW')}"
        )
    if gguf:
        return f"{path} holds a GGUF file ({gguf[0]}): {NEEDED}. {_convert('ORGANISATION/MODEL')}"
    if other:
        return f"{path} holds weights under a name that MLX does not look for ({other[0]}): {NEEDED}."
    found = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
    return f"{path} holds no weights (found: {found}): {NEEDED}. {_convert('ORGANISATION/MODEL')}"


def _convert(source: str) -> str:
    return f"Convert the original with `mlx_lm.convert --hf-path {source} --mlx-path FOLDER -q`, then give FOLDER."


def _require_all_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    try:
        with open_regular(index) as opened:
            shards = set(msgspec.json.decode(opened.read(), type=ShardIndex).weight_map.values())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidModel(f"Expected {index} to map tensors to files: {exc}.") from exc
    missing = sorted(name for name in shards if not (folder / name).exists())
    if missing:
        raise InvalidModel(
            f"{folder} lacks {len(missing)} of its {len(shards)} weight files ({missing[0]}). Fetch the model again."
        )


def _require_whole(file: Path) -> None:
    """A file is the header's length (8 bytes), a JSON header with every tensor's offsets, and the tensors (safetensors,
    README, "Format")."""
    with open_regular(file) as opened:
        start = opened.read(len(GIT_LFS_POINTER))
        if start == GIT_LFS_POINTER:
            raise InvalidModel(f"{file} is a Git LFS pointer, not weights. Run `git lfs pull` in {file.parent}.")
        header_bytes = int.from_bytes(start[:8], "little")
        opened.seek(8)
        header = opened.read(header_bytes) if header_bytes <= MAX_HEADER_BYTES else b""
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        ends = [
            msgspec.json.decode(tensor, type=TensorInfo).data_offsets[1]
            for name, tensor in raw.items()
            if name != "__metadata__"
        ]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidModel(f"{file} is damaged: it has no safetensors header. Fetch the model again.") from None
    expected, found = 8 + header_bytes + max(ends, default=0), file.stat().st_size
    if found < expected:
        raise InvalidModel(f"{file} is cut off: expected {expected} bytes, found {found}. Fetch the model again.")
