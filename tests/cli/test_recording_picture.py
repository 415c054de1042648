"""The README's animated picture: what a terminal showed, with its pauses cut."""

import xml.etree.ElementTree as ET

import msgspec

from scripts.pictures import PICTURES
from scripts.recording import COLUMNS, END_SECONDS, LONGEST_PAUSE, ROWS, Screen, Shown, draw, frames_of


def shown(*texts: str) -> list[str]:
    screen = Screen()
    for text in texts:
        screen.write(text)
    return screen.rows()


def test_a_screen_shows_what_a_terminal_does() -> None:
    assert shown("$ ls\r\n", "\x1b[32m10 %\x1b[0m", "\r100") == ["$ ls", "100%"]
    assert shown("loading", "\r\x1b[2Kdone") == ["done"]
    assert shown("one\r\n", "spinner", "\r\n\x1b[1A\x1b[2K", "two") == ["one", "two"]
    assert shown("x" * (COLUMNS + 1)) == ["x" * COLUMNS, "x"]
    assert shown("".join(f"{number}\r\n" for number in range(ROWS)))[:2] == ["1", "2"]


def test_pauses_and_spinners_are_cut() -> None:
    turns = [Shown(2 + turn / 10, "o", f"\r{chr(0x2801 + turn)} loading") for turn in range(90)]
    frames = frames_of([Shown(0, "o", "$ wait\r\n"), *turns, Shown(100, "o", "\rdone     ")])
    assert [frame.pause for frame in frames] == [LONGEST_PAUSE, LONGEST_PAUSE, END_SECONDS]
    assert frames[-1].at == 100


def test_the_picture_is_drawn_from_its_recording() -> None:
    lines = (PICTURES / "first-answer.cast").read_text().splitlines()
    picture = draw(frames_of([msgspec.json.decode(line, type=Shown) for line in lines[1:]]))
    assert picture == (PICTURES / "first-answer.svg").read_text()
    ET.fromstring(picture)  # noqa: S314 - ours; raises if it is no XML
    assert ">The capital of France is Paris.<" in picture
    assert " seconds to the first answer<" in picture
