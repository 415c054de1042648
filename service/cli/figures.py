"""Numbers as text for people. A dash is an unknown number."""

UNKNOWN = "-"
Names = tuple[str, str]
ANSWERS = ("answer", "answers")
REQUESTS = ("request", "requests")


def count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def counted(number: int, names: Names) -> str:
    return f"{count(number)} {names[number != 1]}"


def duration(seconds: float | None) -> str:
    """Returns at most three digits: `0.43 ms`, `62 ms`, `1.25 s`, `12.3 s`, `2 min 5 s`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.00995:
        return f"{seconds * 1e3:.2f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def span(seconds: float) -> str:
    """The two largest units: `3 h 5 min`."""
    left = int(seconds)
    parts = []
    for name, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        value, left = divmod(left, length)
        if value:
            parts.append(f"{value} {name}")
    return " ".join(parts[:2]) or "0 s"


def size(value: int) -> str:
    """`49.5 MiB`, `312 KiB`."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if amount >= 100 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
