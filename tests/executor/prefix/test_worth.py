"""Which states are worth a file."""

import pytest

from service.executor.prefix.worth import MeasuredPrices, Prices, is_worth_a_file, least_tokens

# Tokens a second that a machine reads, bytes of a token's state, and bytes a second of its disk. Only the CPU's figures
# were measured.
MACHINES = {
    "CPU of two cores, small model": (150, 46_080, 1.0e9),
    "M1 8 GB, dense 4B": (300, 147_456, 2.5e9),
    "M2 16 GB, dense 8B": (250, 131_072, 3.0e9),
    "M1 Pro 32 GB, 30B with experts": (500, 98_304, 5.0e9),
    "M4 Max 48 GB, dense 24B": (450, 163_840, 6.0e9),
    "M5 Max 128 GB, 30B with experts": (4_000, 98_304, 7.0e9),
    "M3 Ultra 512 GB, small model": (12_000, 114_688, 6.0e9),
    "RTX 24 GB, dense 8B, slow disk": (6_000, 131_072, 0.5e9),
    "A100 80 GB, small model": (60_000, 114_688, 2.0e9),
}


@pytest.mark.parametrize(
    ("machine", "least"),
    [
        ("CPU of two cores, small model", 2),
        ("M1 8 GB, dense 4B", 4),
        ("M2 16 GB, dense 8B", 3),
        ("M1 Pro 32 GB, 30B with experts", 5),
        ("M4 Max 48 GB, dense 24B", 5),
        ("M5 Max 128 GB, 30B with experts", 73),
        ("M3 Ultra 512 GB, small model", None),
        ("RTX 24 GB, dense 8B, slow disk", None),
        ("A100 80 GB, small model", None),
    ],
)
def test_a_file_pays_from_some_length_on(machine: str, least: int | None) -> None:
    read_rate, token_bytes, disk_rate = MACHINES[machine]
    prices = Prices(token=1 / read_rate, written_byte=1 / disk_rate, loaded_byte=1 / disk_rate)
    paying = [tokens for tokens in range(1, 20_000) if is_worth_a_file(tokens, tokens * token_bytes, prices)]
    assert (paying[0] if paying else None) == least_tokens(0, token_bytes, prices) == least


def test_a_state_with_a_fixed_part_pays_later() -> None:
    prices = Prices(token=0.01)
    sizes = [(tokens, 10**6 + 1000 * tokens) for tokens in range(1, 100)]
    paying = [tokens for tokens, nbytes in sizes if is_worth_a_file(tokens, nbytes, prices)]
    assert paying[0] == least_tokens(10**6, 1000, prices) > least_tokens(0, 1000, prices)


def test_everything_is_written_until_the_model_is_measured() -> None:
    assert is_worth_a_file(1, 1000, Prices())
    assert least_tokens(0, 1000, Prices()) == 1


def test_prices_follow_what_is_measured() -> None:
    measured = MeasuredPrices()
    for _ in range(30):
        measured.learn_token(64, 0.64)
        measured.learn_write(10**6, 0.101)
        measured.learn_load(10**6, 0.011)
    prices = measured.prices
    assert (prices.token, prices.written_byte, prices.loaded_byte) == pytest.approx((1e-2, 1e-7, 1e-8), rel=0.01)
