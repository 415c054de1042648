"""What a check has found."""

from typing import Literal

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`advice` says what to do, where something is to be done."""

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
