"""The checks of `anyclaude doctor`: `machine` checks the installation, `device` judges what MLX computes
on, `setup` checks the configuration."""

from typing import Literal

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`advice` is the user's next step."""

    name: str
    status: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Result:
    return Result(name=name, status="ok", found=found)


def warning(name: str, found: str, advice: str) -> Result:
    return Result(name=name, status="warning", found=found, advice=advice)


def failed(name: str, found: str, advice: str) -> Result:
    return Result(name=name, status="failed", found=found, advice=advice)
