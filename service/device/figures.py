from typing import Literal

import msgspec

DeviceKind = Literal["metal", "cuda", "cpu"]


class DeviceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of a machine, in bytes; None is unknown, or not there on this `kind` of device. `total` and `free`
    (without swapping) are the system's, within a container's limit; `own` is this process's part. Metal advises
    `recommended`. A CUDA card has `card_total` and `card_free`. macOS does not swap `wired`. `active` are MLX's arrays,
    `buffers` its freed ones."""

    kind: DeviceKind = "cpu"
    system: str
    name: str = ""
    cores: int
    total: int
    free: int | None
    own: int = 0
    recommended: int | None = None
    wired: int | None = None
    card_total: int | None = None
    card_free: int | None = None
    active: int = 0
    buffers: int = 0
