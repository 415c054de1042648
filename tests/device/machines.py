"""Figures of real machines. Metal recommends two thirds of up to 36 GB, and three quarters of more."""

from service.device.figures import DeviceFigures

GIB = 1024**3


def mac(name: str, gib: int, *, free: float = 0.8, cores: int = 10) -> DeviceFigures:
    """`free` is the share of memory that is free."""
    total = gib * GIB
    return DeviceFigures(
        kind="metal",
        system="darwin",
        name=f"Apple {name}",
        cores=cores,
        total=total,
        free=int(free * total),
        recommended=int(total * (2 / 3 if gib < 36 else 3 / 4)),
    )


def card(name: str, gib: int, *, host_gib: int = 64) -> DeviceFigures:
    total = host_gib * GIB
    return DeviceFigures(
        kind="cuda",
        system="linux",
        name=name,
        cores=16,
        total=total,
        free=int(0.9 * total),
        card_total=gib * GIB,
        card_free=int(0.96 * gib * GIB),
    )


def linux(gib: int, *, free: float = 0.8) -> DeviceFigures:
    return DeviceFigures(system="linux", cores=8, total=gib * GIB, free=int(free * gib * GIB))


MACHINES = {
    "M1 8 GB": mac("M1", 8, free=0.5),
    "M2 16 GB": mac("M2", 16),
    "M3 24 GB": mac("M3", 24),
    "M1 Pro 32 GB": mac("M1 Pro", 32),
    "M4 Pro 36 GB": mac("M4 Pro", 36),
    "M4 Max 48 GB": mac("M4 Max", 48),
    "M5 Max 128 GB": mac("M5 Max", 128),
    "M3 Ultra 512 GB": mac("M3 Ultra", 512),
    "RTX 8 GB": card("RTX 4060", 8, host_gib=32),
    "RTX 24 GB": card("RTX 4090", 24, host_gib=128),
    "A100 80 GB": card("A100", 80, host_gib=512),
    "Linux 16 GB": linux(16),
    "Linux 64 GB": linux(64),
}
