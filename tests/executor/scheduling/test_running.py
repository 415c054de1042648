from service.events import ChoiceFinished, Event, TextDelta
from service.executor.scheduling.protocols import EndReason, Token
from service.executor.scheduling.running import Running
from tests.executor.engines import NumberWriter, sequence


class Interjecting(NumberWriter):
    """Continues the answer with 90 and 91 in place of an end."""

    asked: tuple[EndReason | None, int] = (None, 0)

    def interjection(self, end: EndReason | None, room: int) -> tuple[int, ...]:
        self.asked = (end, room)
        return () if end is None else (90, 91)


def running(*, reserved: int = 5, stop: tuple[str, ...] = ()) -> Running:
    one = sequence(1, max_tokens=9, prompt=2, stop=stop)
    return Running(one, NumberWriter(one), reserved)


def text(*numbers: int) -> list[Event]:
    return [TextDelta(0, f"{number} ") for number in numbers]


def test_a_token_is_written() -> None:
    one = running()
    assert one.write(Token(1, 5)) == (text(5), None, False)
    assert (one.tokens, one.drawn) == (1, [5])


def test_an_end_token_is_counted_and_has_no_text() -> None:
    one = running()
    assert one.write(Token(1, 2, "stop")) == ([ChoiceFinished(0, "stop")], "stop", False)
    assert (one.tokens, one.drawn) == (1, [])


def test_a_stop_string_ends_the_answer() -> None:
    assert running(stop=("5",)).write(Token(1, 5)) == ([ChoiceFinished(0, "stop")], "stop", False)


def test_the_last_reserved_token_ends_the_answer() -> None:
    one = running(reserved=2)
    assert one.write(Token(1, 5)) == (text(5), None, False)
    assert one.write(Token(1, 6)) == ([*text(6), ChoiceFinished(0, "length")], "length", False)


def test_an_interjection_takes_the_place_of_an_end() -> None:
    writer = Interjecting(sequence(1))
    one = Running(sequence(1, max_tokens=9, prompt=2), writer, 5)
    one.write(Token(1, 5))
    assert writer.asked == (None, 4)
    assert one.write(Token(1, 2, "stop")) == (text(90, 91), None, True)
    assert writer.asked == ("stop", 3)
    assert (one.tokens, one.drawn) == (4, [5, 90, 91])


def test_an_answer_continues_with_what_was_drawn_and_the_tokens_that_are_left() -> None:
    one = Running(sequence(1, max_tokens=9, prompt=2), Interjecting(sequence(1)), 5)
    one.write(Token(1, 5))
    one.write(Token(1, 2, "stop"))
    continued = one.continuation()
    assert continued.prompt.tokens == [7, 7, 5, 90, 91]
    assert (continued.id, continued.max_tokens, continued.answered) == (1, 5, 3)
