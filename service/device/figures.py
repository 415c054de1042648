from typing import Literal

import msgspec

DeviceKind = Literal["metal", "cuda", "cpu"]


class DeviceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of a machine. Sizes are in bytes; None is unknown, or not there on this `kind` of device.

    `total` and `free` are the system's memory, within a container's limit; `free` is usable without swapping. `own` is
    this process's part. `recommended` is what Metal advises a process to use, `card_total` and `card_free` are a CUDA
    card's memory. macOS does not swap `wired`. `active` are MLX's arrays, `buffers` are those that it freed and keeps.
    """

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
