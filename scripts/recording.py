"""Records the way from the wheel to the first answer, and draws it as an animated picture for the README.

Run it in the project's folder: .venv/bin/python -m scripts.recording. It writes docs/pictures/first-answer.cast, in
asciinema's format, and first-answer.svg. With --draw it only draws the recording again.
"""

import os
import pty
import re
import select
import sys
import tempfile
import time
from html import escape
from pathlib import Path

import msgspec

from scripts.pictures import PICTURES
from tests.cli.installation import build_wheel

COLUMNS, ROWS = 96, 9
COMMANDS = (
    "python3 -m venv env",
    "env/bin/pip install --quiet anyclaude-*.whl",
    "env/bin/anyclaude run demo 'What is the capital of France?'",
)
LONGEST_PAUSE = 1.5
FRAME_SECONDS = 0.1
END_SECONDS = 5.0
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")
SPINNER = re.compile("[\u2801-\u28ff]")
LINE, GLYPH, MARGIN = 20, 8.4, 16


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """An event of asciinema's format: output at `seconds` after the start."""

    seconds: float
    kind: str
    text: str


class Screen:
    """The text of a terminal that scrolls. It knows no colours, and moves by lines."""

    def __init__(self) -> None:
        self._lines = [""]
        self._column = 0

    def write(self, text: str) -> None:
        for part in re.split(r"(\r|\n|\x1b\[2K|\x1b\[1A)", text):
            if part == "\x1b[2K":
                self._lines[-1] = ""
            elif part == "\x1b[1A":
                self._lines = self._lines[:-1] or [""]
            elif part == "\n":
                self._lines.append("")
                self._column = 0
            elif part == "\r":
                self._column = 0
            else:
                shown, line = CONTROLS.sub("", part), self._lines[-1].ljust(self._column)
                self._lines[-1] = line[: self._column] + shown + line[self._column + len(shown) :]
                self._column += len(shown)

    def rows(self) -> list[str]:
        folded = [line[at : at + COLUMNS] for line in self._lines for at in range(0, max(1, len(line)), COLUMNS)]
        return folded[-ROWS:]


def record(folder: Path) -> list[Shown]:
    """Runs `COMMANDS` in a terminal, in an empty home. Raises RuntimeError if one fails."""
    variables = {"HOME": str(folder), "PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": str(COLUMNS)}
    variables |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    events: list[Shown] = []
    started = time.monotonic()
    for command in COMMANDS:
        events.append(Shown(time.monotonic() - started, "o", f"$ {command}\r\n"))
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(folder)
            os.execve("/bin/sh", ["/bin/sh", "-c", command], variables)  # noqa: S606 - the commands above
        while select.select([terminal], [], []) and (text := _read(terminal)):
            events.append(Shown(time.monotonic() - started, "o", text))
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise RuntimeError(f"{command} failed:\n{''.join(event.text for event in events)}")
    seconds = time.monotonic() - started
    events.append(Shown(seconds, "o", f"\r\n# {len(COMMANDS)} commands, {seconds:.0f} seconds to the first answer\r\n"))
    return events


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # the command has closed its terminal
        return ""


class Frame(msgspec.Struct):
    """`at` and `pause` are in seconds: of the recording, and of the picture."""

    at: float
    pause: float
    rows: list[str]


def frames_of(events: list[Shown]) -> list[Frame]:
    """Cuts pauses, and spinners that turn, to `LONGEST_PAUSE`."""
    screen, frames = Screen(), list[Frame]()
    for event, after in zip(events, [*events[1:], None], strict=True):
        screen.write(event.text)
        pause = END_SECONDS if after is None else min(after.seconds - event.seconds, LONGEST_PAUSE)
        rows = screen.rows()
        last = frames[-1] if frames else None
        if last is not None and _without_spinner(last.rows) == _without_spinner(rows):
            last.pause = min(last.pause + pause, LONGEST_PAUSE)
        elif last is not None and last.pause < FRAME_SECONDS:
            frames[-1] = Frame(event.seconds, last.pause + pause, rows)
        else:
            frames.append(Frame(event.seconds, pause, rows))
    return frames


def _without_spinner(rows: list[str]) -> list[str]:
    return [SPINNER.sub("", row).strip() for row in rows if SPINNER.sub("", row).strip()]


def draw(frames: list[Frame]) -> str:
    """Returns an SVG that shows one frame after the other, and only the last to people who want no motion."""
    width, height = COLUMNS * GLYPH + 2 * MARGIN, ROWS * LINE + 2 * MARGIN
    whole, passed, steps, film = sum(frame.pause for frame in frames), 0.0, [], []
    for number, frame in enumerate(frames):
        top = number * height
        steps.append(f"{100 * passed / whole:.3f}%{{transform:translateY({-top}px)}}")
        passed += frame.pause
        lines = [(row, top + MARGIN + (at + 1) * LINE - 5) for at, row in enumerate(frame.rows)]
        film += [_text(row, MARGIN, y) for row, y in lines if row.strip()]
        film.append(_text(f"{frame.at:.0f} s", width - 4.5 * LINE, top + height - MARGIN / 2, "clock"))
    last = -(len(frames) - 1) * height
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">
<title>From the wheel to the first answer: {len(COMMANDS)} commands</title>
<style>
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }}
.command {{ fill: #6fdcab }} .output {{ fill: #e9ecf3 }} .clock {{ fill: #9aa4b8 }}
.film {{ animation: film {whole:.1f}s step-end infinite }}
@keyframes film {{ {" ".join(steps)} }}
@media (prefers-reduced-motion: reduce) {{ .film {{ animation: none; transform: translateY({last}px) }} }}
</style>
<rect width="100%" height="100%" rx="10" fill="#191d27"/>
<svg width="{width:g}" height="{height:g}"><g class="film">
{chr(10).join(film)}
</g></svg>
</svg>
"""


def _text(row: str, x: float, y: float, kind: str = "") -> str:
    kind = kind or ("command" if row[0] in "$#" else "output")
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(row)}</text>'


def record_in_new_home() -> list[Shown]:
    with tempfile.TemporaryDirectory() as name:
        wheel = build_wheel(Path(name))
        home = Path(name, "home")
        home.mkdir()
        wheel.rename(home / wheel.name)
        return [msgspec.structs.replace(event, text=event.text.replace(str(home), "~")) for event in record(home)]


def main() -> None:
    cast = PICTURES / "first-answer.cast"
    if "--draw" in sys.argv:
        events = [msgspec.json.decode(line, type=Shown) for line in cast.read_text().splitlines()[1:]]
    else:
        events = record_in_new_home()
        header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "From the wheel to the first answer"}
        cast.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in (header, *events)))
    (PICTURES / "first-answer.svg").write_text(draw(frames_of(events)))
    sys.stdout.write(events[-1].text)


if __name__ == "__main__":
    main()
