"""How many tokens are guessed, by how often guesses were right and by what they take."""

from service.executor.speculation.experience import PASSED_OVER, Experience
from service.executor.speculation.step_times import MEASURED_STEPS

# Seconds of a step by the number of guessed tokens.
SHORT = {0: 0.06, 1: 0.09, 2: 0.09, 4: 0.09}
LONG = {8: 0.1, 16: 0.1}


def timed(seconds: dict[int, float]) -> Experience:
    experience = Experience()
    for _ in range(MEASURED_STEPS):
        experience.times.learn_plain(seconds[0])
        for guessed in seconds.keys() - {0}:
            experience.times.learn_guess("lookup", guessed, seconds[guessed])
    return experience


def learn(experience: Experience, basis: int, right: list[int], guessed: int = 4) -> None:
    for each in right:
        experience.learn("lookup", basis, guessed, each)


def test_untimed_guesses_follow_their_limit() -> None:
    assert [Experience().length("lookup", 0, 16, untimed=untimed) for untimed in (1, 3, 16)] == [1, 3, 16]


def test_a_timed_guess_needs_no_small_beginning() -> None:
    assert timed(SHORT | LONG).length("lookup", 0, 16, untimed=3) == 16
    assert timed(SHORT | LONG).length("lookup", 0, 2, untimed=1) == 2
    assert timed(SHORT).length("lookup", 0, 16, untimed=3) == 4
    assert timed(SHORT).length("lookup", 0, 16, untimed=9) == 9


def test_steps_without_a_guess_are_timed_once_guesses_are() -> None:
    experience = Experience()
    for _ in range(MEASURED_STEPS):
        assert experience.length("lookup", 0, 16, untimed=4) == 4
        experience.times.learn_guess("lookup", 4, 0.1)
    for _ in range(MEASURED_STEPS):
        assert experience.length("lookup", 0, 16, untimed=4) == 0
        experience.times.learn_plain(0.06)
    assert experience.length("lookup", 0, 16, untimed=4) > 0


def test_each_basis_has_its_own_success() -> None:
    experience = timed(SHORT | LONG)
    learn(experience, 0, [0] * 20)
    learn(experience, 3, [4] * 20)
    assert [experience.length("lookup", basis, 16, untimed=1) for basis in (0, 3)] == [0, 16]
    assert experience.length("model", 0, 16, untimed=1) == 1


def test_what_never_pays_is_tried_about_once_in_a_hundred_tokens() -> None:
    experience = timed(SHORT)
    learn(experience, 0, [0] * 50)
    tries = 0
    for _ in range(10 * PASSED_OVER):
        if experience.length("lookup", 0, 16, untimed=1):
            experience.learn("lookup", 0, 1, 0)
            tries += 1
    assert 8 <= tries <= 10


def test_what_comes_right_again_is_guessed_again() -> None:
    experience = timed(SHORT)
    learn(experience, 0, [0] * 50)
    lengths = []
    for _ in range(12 * PASSED_OVER):
        lengths.append(experience.length("lookup", 0, 16, untimed=4))
        if lengths[-1]:
            experience.learn("lookup", 0, lengths[-1], lengths[-1])
    assert all(lengths[-PASSED_OVER:])
