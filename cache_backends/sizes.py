import re
from collections.abc import Mapping
from decimal import Decimal

UNITS: Mapping[str, int] = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("ib", 1024), ("b", 1000))
}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)")


def read_size(text: str) -> int:
    """Returns bytes. Accepts `1000`, `256MiB` (2**20 each) and `1.5 GB` (10**9 each) in any case. Raises ValueError
    with the expected form."""
    match = _SIZE.fullmatch(text.strip())
    unit = UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError("a size such as 1000, 512KiB, 256MiB or 1GiB")
    return int(Decimal(match[1]) * unit)
