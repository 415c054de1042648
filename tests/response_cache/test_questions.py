import pytest

from service.generation import GenerationRequest, Message, RawPrompt
from service.response_cache.questions import REMEMBERED, SHOWN_CHARS, Questions
from tests.response_cache.answers import ask

TURNS = (
    Message(role="user", content="the first"),
    Message(role="assistant", content="an answer"),
    Message(role="user", content="\n  the last  \nits second line"),
    Message(role="assistant", content="a beginning"),
)


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (GenerationRequest(messages=TURNS), "the last"),
        (ask("x" * 200), "x" * SHOWN_CHARS),
        (ask(" \n "), ""),
        (GenerationRequest(messages=TURNS[1:2]), ""),
        (ask("a", raw_prompt=RawPrompt(text="def f():\n    pass")), "def f():"),
    ],
    ids=["the last of the user", "a long line", "white space", "nothing of the user", "a raw prompt"],
)
def test_the_first_line_of_the_question_is_kept(request_: GenerationRequest, shown: str) -> None:
    questions = Questions(kept=True)
    questions.see("key", request_)
    assert questions.of("key") == shown
    assert questions.of("other") == ""


def test_content_is_not_kept_unless_it_may_be() -> None:
    questions = Questions(kept=False)
    questions.see("key", ask())
    assert questions.of("key") == ""


def test_the_questions_that_were_asked_last_are_kept() -> None:
    questions = Questions(kept=True)
    for number in range(REMEMBERED):
        questions.see(str(number), ask(f"question {number}"))
    questions.see("0", ask("once more"))
    questions.see("new", ask("question"))
    assert [questions.of(key) for key in ("0", "1", "2", "new")] == ["once more", "", "question 2", "question"]
