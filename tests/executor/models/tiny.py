"""Builds any model file of mlx-lm tiny: four layers, width 64, 512 tokens, windows of 32, random f32 weights.

In `tiny.json`, `sizes` hold for each field of that name in a file's `ModelArgs`, `families` for one file, and
`text_from` names the file that defines the text model of another.
"""

import dataclasses
import importlib
import json
import pkgutil
import typing
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.models

TABLES: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text())
SIZES, CONFIGS, TEXT_FROM = TABLES["sizes"], TABLES["families"], TABLES["text_from"]
MISSING = dataclasses.MISSING


def families() -> list[str]:
    """Returns the names of all files that define a model, those included that cannot be built."""
    names = []
    for module in pkgutil.iter_modules(mlx_lm.models.__path__):
        spec = module.module_finder.find_spec(module.name, None)  # type: ignore[call-arg]
        source = spec.loader.get_source(module.name) if spec is not None and spec.loader is not None else ""
        if "class ModelArgs" in source and "class Model(" in source:
            names.append(module.name)
    return sorted(names, key=str.lower)


def make_tiny(name: str, **changes: Any) -> Any:
    """Returns the model, with the same weights each time."""
    module: Any = importlib.import_module(f"mlx_lm.models.{name}")
    mx.random.seed(3)
    model = module.Model(module.ModelArgs.from_dict(tiny_config(name) | changes))
    mx.eval(model.parameters())
    return model


def tiny_config(name: str) -> dict[str, Any]:
    module: Any = importlib.import_module(f"mlx_lm.models.{name}")
    own = CONFIGS.get(name, {})
    if "text_config" not in {field.name for field in dataclasses.fields(module.ModelArgs)}:
        return _guess(module.ModelArgs, name) | own
    source: Any = importlib.import_module(f"mlx_lm.models.{TEXT_FROM[name]}") if name in TEXT_FROM else module
    kinds = ("TextConfig", "TextArgs", "TextModelArgs", "ModelArgs")
    text_args = next(getattr(source, kind) for kind in kinds if hasattr(source, kind))
    return {"model_type": name, "vocab_size": SIZES["vocab_size"], "text_config": _guess(text_args, name) | own}


def _guess(args: Any, name: str) -> dict[str, Any]:
    hints = typing.get_type_hints(args)
    config: dict[str, Any] = {"model_type": name}
    for field in dataclasses.fields(args):
        if field.name in SIZES:
            config[field.name] = SIZES[field.name]
        elif field.name not in config and field.default is MISSING and field.default_factory is MISSING and field.init:
            config[field.name] = _empty(hints[field.name])
    return config


def _empty(hint: Any) -> Any:
    values: dict[Any, Any] = {int: 4, float: 1.0, bool: False, str: "", list: [], dict: {}}
    kinds = [typing.get_origin(kind) or kind for kind in typing.get_args(hint) or (hint,)]
    return next((values[kind] for kind in kinds if kind in values), None)
