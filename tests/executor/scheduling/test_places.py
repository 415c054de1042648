"""How many sequences run at the same time."""

import random

import pytest

from service.executor.scheduling.places import FEWEST, FIRST, MEASURED_STEPS, RETRY_STEPS, Places, useful_places

# Tokens per second of all sequences together, by their number. The CPU is the one of the benchmarks; the others follow
# from the memory bandwidth and the arithmetic of each kind of machine, and were not measured.
MACHINES = {
    "CPU of two cores, small model": {1: 15.4, 2: 24.0, 4: 40.3, 8: 61.2, 16: 75.0},
    "CPU, large model": {1: 2.0, 2: 2.6, 4: 2.7, 8: 2.7},
    "M1 8 GB, dense 4B": {1: 20.0, 2: 34.0, 4: 46.0, 8: 47.0},
    "M2 16 GB, dense 8B": {1: 11.0, 2: 20.0, 4: 30.0, 8: 33.0, 16: 33.5},
    "M1 Pro 32 GB, 30B with experts": {1: 45.0, 2: 60.0, 4: 78.0, 8: 95.0, 16: 110.0},
    "M4 Max 48 GB, dense 24B": {1: 28.0, 2: 50.0, 4: 84.0, 8: 120.0, 16: 124.0},
    "M5 Max 128 GB, 30B with experts": {1: 80.0, 2: 125.0, 4: 190.0, 8: 270.0, 16: 340.0},
    "M3 Ultra 512 GB, dense 24B": {1: 36.0, 2: 68.0, 4: 124.0, 8: 190.0, 16: 260.0},
    "RTX 24 GB, dense 8B": {1: 90.0, 2: 175.0, 4: 340.0, 8: 640.0, 16: 1150.0},
    "A100 80 GB, dense 24B": {1: 60.0, 2: 118.0, 4: 230.0, 8: 440.0, 16: 830.0},
    "guesses make one alone three times as fast": {1: 52.0, 2: 24.0, 4: 40.0, 8: 61.0},
}
CHOSEN = {
    "CPU of two cores, small model": 16,
    "CPU, large model": 2,
    "M1 8 GB, dense 4B": 4,
    "M2 16 GB, dense 8B": 8,
    "M1 Pro 32 GB, 30B with experts": 8,
    "M4 Max 48 GB, dense 24B": 8,
    "M5 Max 128 GB, 30B with experts": 16,
    "M3 Ultra 512 GB, dense 24B": 16,
    "RTX 24 GB, dense 8B": 16,
    "A100 80 GB, dense 24B": 16,
    "guesses make one alone three times as fast": 2,
}


@pytest.mark.parametrize("machine", MACHINES)
def test_places_follow_from_the_rates_of_a_machine(machine: str) -> None:
    assert useful_places(MACHINES[machine], 16) == CHOSEN[machine]


@pytest.mark.parametrize(
    ("rates", "most", "places"),
    [
        ({}, 16, FIRST),
        ({}, 1, 1),
        ({}, 3, 3),
        ({4: 40.0}, 16, 8),
        ({4: 40.0}, 6, 6),
        ({2: 20.0, 4: 20.5}, 16, FEWEST),
        ({2: 20.0, 4: 40.0, 8: 41.0}, 16, 4),
        ({1: 20.0, 4: 30.0, 8: 39.0}, 16, 4),
        ({2: 30.0, 4: 33.0, 8: 36.0, 16: 40.0}, 16, 8),
        ({1: 40.0, 2: 10.0, 4: 12.0}, 16, FEWEST),
    ],
    ids=[
        "nothing is known", "one at a time", "fewer than the first", "the next is tried", "not beyond the most",
        "four gain nothing", "eight gain nothing", "eight would slow each too much",
        "sixteen would, though none has run alone", "never fewer than two",
    ],
)  # fmt: skip
def test_places_double_while_that_pays(rates: dict[int, float], most: int, places: int) -> None:
    assert useful_places(rates, most) == places


def decode(places: Places, seconds: dict[int, float], steps: int) -> None:
    """All places are taken, and each step draws one token of each."""
    for _ in range(steps):
        places.learn(places.number, places.number, seconds[places.number])


def test_more_are_tried_once_the_present_number_is_measured() -> None:
    places = Places(16, adapts=True)
    seconds = {4: 0.1, 8: 0.12, 16: 0.2}
    decode(places, seconds, MEASURED_STEPS - 1)
    assert places.number == FIRST
    decode(places, seconds, 1)
    assert places.number == 8
    decode(places, seconds, MEASURED_STEPS)
    assert places.number == 16


def test_a_number_that_did_not_pay_is_tried_again_later() -> None:
    places = Places(16, adapts=True)
    seconds = {4: 0.1, 8: 0.2}
    decode(places, seconds, 2 * MEASURED_STEPS)
    assert places.number == 4
    seconds |= {8: 0.11, 16: 10.0}
    decode(places, seconds, RETRY_STEPS)
    assert places.number == 8


def test_a_step_that_took_no_time_is_not_measured() -> None:
    places = Places(16, adapts=True)
    for _ in range(MEASURED_STEPS):
        places.learn(FIRST, 4, 0.0)
    assert places.number == FIRST


@pytest.mark.parametrize("seed", range(10))
def test_other_work_of_the_machine_takes_no_places(seed: int) -> None:
    chance, places = random.Random(seed), Places(4, adapts=True)
    for _ in range(500):
        places.learn(1, 1, 0.1)
    for _ in range(500):
        places.learn(places.number, places.number, 0.17 * chance.choice([1.0, 2.0, 5.0, 9.0]))
    assert places.number == 4


def test_guesses_that_are_right_count() -> None:
    places = Places(4, adapts=True)
    for _ in range(50):
        places.learn(1, 1, 0.1)
        places.learn(1, 9, 0.2)
    decode(places, {2: 0.15, 4: 0.17}, MEASURED_STEPS)
    assert places.number == FEWEST


def test_a_number_that_is_set_stays() -> None:
    places = Places(16)
    decode(places, {16: 0.001}, 10 * MEASURED_STEPS)
    assert places.number == 16
