"""PNG plots of results. The extra `bench` installs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

SIZE_INCHES = (9.0, 4.5)
DPI = 110


def bars(path: Path, title: str, unit: str, names: Sequence[str], sides: Mapping[str, Sequence[float]]) -> Path:
    """Each name has a group of bars, with one bar a side, on a logarithmic scale."""
    figure = Figure(SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(sides)
    for index, (side, values) in enumerate(sides.items()):
        axes.bar([place + index * width for place in range(len(names))], values, width, label=side)
    axes.set_xticks([place + width * (len(sides) - 1) / 2 for place in range(len(names))], names, fontsize=7)
    axes.set(title=title, ylabel=unit, yscale="log")
    return _save(figure, path)


def lines(
    path: Path,
    title: str,
    labels: tuple[str, str],
    places: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    log: bool = False,
) -> Path:
    """`labels` name the axes; `log` makes both logarithmic."""
    figure = Figure(SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(places, values, marker="o", label=name)
    scale = "log" if log else "linear"
    axes.set(title=title, xlabel=labels[0], ylabel=labels[1], xscale=scale, yscale=scale)
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.xaxis.minorticks_off()
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    axes = figure.axes[0]
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    # No program name and no date in the file: the same results give the same bytes.
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path
