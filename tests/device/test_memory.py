"""What follows from the figures of real machines."""

import msgspec
import pytest

from service.device.figures import DeviceFigures
from service.device.kv_estimate import bytes_per_token, kv_bytes_per_token
from service.device.memory import (
    LEAST_CONTEXT_TOKENS,
    LoadNeeds,
    buffer_limit_bytes,
    command_buffer_variables,
    could_fit,
    load_refusal,
    longest_context,
    usable_bytes,
    wired_bytes,
    with_raised_limit,
)
from service.models.recommended import RECOMMENDED
from tests.device.machines import GIB, MACHINES, card, linux, mac

CODER_30B = {"num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128}
CODER_30B_BYTES = 17_200_000_000
CODER_30B_TOKEN_BYTES = 98_304
CODER_30B_NEEDS = LoadNeeds(weight_bytes=CODER_30B_BYTES, token_bytes=CODER_30B_TOKEN_BYTES)


@pytest.mark.parametrize(
    ("figures", "usable"),
    [
        (mac("M1", 8, free=0.5), 3.6),
        (mac("M4 Max", 64), 48.0),
        (mac("M4 Max", 64, free=0.3), 16.0),
        (msgspec.structs.replace(mac("M4 Max", 64), active=20 * GIB, buffers=2 * GIB), 28.0),
        (card("RTX 4090", 24, host_gib=128), 23.04),
        (linux(16), 12.0),
        (linux(16, free=0.01), -0.64),
        (msgspec.structs.replace(linux(16), free=None), None),
    ],
    ids=[
        "what is free", "what Metal recommends", "a full desktop", "beside MLX's own", "the card's and not the host's",
        "Linux", "other programs need some of it", "unknown",
    ],
)  # fmt: skip
def test_what_can_be_allocated(figures: DeviceFigures, usable: float | None) -> None:
    assert usable_bytes(figures) == (None if usable is None else pytest.approx(usable * GIB, rel=0.001))


@pytest.mark.parametrize("name", MACHINES)
def test_freed_buffers_keep_a_twentieth_of_the_device(name: str) -> None:
    figures = MACHINES[name]
    assert buffer_limit_bytes(figures) == pytest.approx((figures.card_total or figures.total) / 20, abs=1)


@pytest.mark.parametrize(
    ("name", "setting", "wired"),
    [
        ("M4 Max 48 GB", "weights", CODER_30B_BYTES),
        ("M4 Max 48 GB", "off", None),
        ("M4 Max 48 GB", 5 * GIB, 5 * GIB),
        ("M2 16 GB", "weights", MACHINES["M2 16 GB"].recommended),
        ("M2 16 GB", 100 * GIB, MACHINES["M2 16 GB"].recommended),
        ("RTX 24 GB", "weights", None),
        ("Linux 64 GB", 5 * GIB, None),
    ],
)
def test_the_weights_alone_are_wired(name: str, setting: object, wired: int | None) -> None:
    assert wired_bytes(MACHINES[name], setting, CODER_30B_BYTES) == wired  # type: ignore[arg-type]


# The longest contexts follow from two thirds and three quarters of memory, less the weights.
@pytest.mark.parametrize(
    ("name", "coder_30b", "devstral_24b", "qwen_4b"),
    [
        ("M1 8 GB", 0, 0, 9_554),
        ("M2 16 GB", 0, 0, 55_866),
        ("M3 24 GB", 0, 21_312, 90_819),
        ("M1 Pro 32 GB", 52_244, 52_770, 125_772),
        ("M4 Pro 36 GB", 107_950, 86_193, 162_909),
        ("M4 Max 48 GB", 196_423, 139_277, 221_891),
        ("M5 Max 128 GB", 786_247, 493_171, 615_107),
        ("M3 Ultra 512 GB", 3_617_402, 2_191_865, 2_502_544),
        ("RTX 8 GB", 0, 0, 36_293),
        ("RTX 24 GB", 69_021, 62_836, 136_956),
        ("A100 80 GB", 597_504, 379_925, 489_278),
        ("Linux 16 GB", 0, 0, 64_605),
        ("Linux 64 GB", 314_388, 210_056, 300_534),
    ],
)
def test_the_context_that_fits_beside_the_weights(name: str, coder_30b: int, devstral_24b: int, qwen_4b: int) -> None:
    models = [(CODER_30B_BYTES, CODER_30B_TOKEN_BYTES), (13_300_000_000, 163_840), (2_300_000_000, 147_456)]
    for (weights, per_token), expected in zip(models, (coder_30b, devstral_24b, qwen_4b), strict=True):
        figures, needs = MACHINES[name], LoadNeeds(weight_bytes=weights, token_bytes=per_token)
        assert longest_context(figures, needs) == expected
        fits = load_refusal(figures, needs) is None
        assert fits == (expected >= LEAST_CONTEXT_TOKENS) == (needs.least_bytes <= (usable_bytes(figures) or 0))


def test_a_refusal_names_the_figures_and_a_remedy_that_helps() -> None:
    refusal = load_refusal(MACHINES["M3 24 GB"], CODER_30B_NEEDS)
    assert refusal == (
        "it needs 17.6 GB, 17.2 GB for its weights and 0.4 GB for a context of 4,096 tokens. 17.2 GB can be used: "
        "20.6 GB of 25.8 GB is free, and Metal recommends at most 17.2 GB. The longest context that would fit has 0 "
        "tokens. Choose a smaller or more strongly quantized model, or raise Metal's limit until the next restart: "
        "sudo sysctl iogpu.wired_limit_mb=20480"
    )
    on_a_card = load_refusal(MACHINES["RTX 8 GB"], CODER_30B_NEEDS)
    assert on_a_card is not None
    assert "8.2 GB of the card's 8.6 GB are free" in on_a_card
    assert "sysctl" not in on_a_card


@pytest.mark.parametrize(
    ("figures", "fits"),
    [
        (mac("M1 Pro", 32, free=0.1), True),
        (mac("M3", 24), False),
        (linux(24, free=0.1), True),
        (linux(16), False),
        (msgspec.structs.replace(card("RTX 4090", 24, host_gib=16), card_free=GIB), True),
        (card("RTX 4060", 8, host_gib=128), False),
    ],
    ids=["a full desktop", "Metal's limit", "a full Linux", "Linux", "a full card", "a small card"],
)
def test_other_programs_can_make_room_up_to_the_whole_device(figures: DeviceFigures, fits: bool) -> None:
    assert load_refusal(figures, CODER_30B_NEEDS) is not None
    assert could_fit(figures, CODER_30B_NEEDS) == fits


CLOSE, RAISE = (
    ", or close other programs.",
    "raise Metal's limit until the next restart: sudo sysctl iogpu.wired_limit_mb",
)


@pytest.mark.parametrize(
    ("figures", "remedy"),
    [
        (mac("M2", 16), "."),
        (mac("M3", 24), f", or {RAISE}=20480"),
        (mac("M3", 24, free=0.5), f", or close other programs and {RAISE}=20480"),
        (mac("M1 Pro", 32, free=0.5), CLOSE),
        (mac("M4 Max", 48, free=0.3), CLOSE),
        (msgspec.structs.replace(mac("M1 Pro", 32), active=8 * GIB), f", or {RAISE}=28672"),
        (linux(16), "."),
        (linux(24, free=0.5), CLOSE),
        (card("RTX 4060", 8), ", or free memory of the card."),
    ],
    ids=[
        "too small", "Metal's limit", "the limit and other programs", "other programs", "a full desktop",
        "another model", "Linux", "other programs on Linux", "a card",
    ],
)  # fmt: skip
def test_a_refusal_advises_what_helps(figures: DeviceFigures, remedy: str) -> None:
    refusal = load_refusal(figures, CODER_30B_NEEDS)
    assert refusal is not None
    assert refusal.partition("quantized model")[2] == remedy


@pytest.mark.parametrize(
    ("name", "limit_mib"),
    [
        ("M1 8 GB", 5_461),
        ("M2 16 GB", 12_288),
        ("M3 24 GB", 20_480),
        ("M1 Pro 32 GB", 28_672),
        ("M4 Pro 36 GB", 32_768),
        ("M4 Max 48 GB", 45_056),
        ("M5 Max 128 GB", 124_518),
        ("M3 Ultra 512 GB", 498_073),
        ("RTX 24 GB", None),
        ("Linux 64 GB", None),
    ],
)
def test_metals_limit_is_raised_as_far_as_macos_can_bear(name: str, limit_mib: int | None) -> None:
    raised = with_raised_limit(MACHINES[name]).recommended
    assert (None if raised is None else raised // 2**20) == limit_mib


@pytest.mark.parametrize("name", MACHINES)
def test_command_buffers_are_longer_on_macs_only(name: str) -> None:
    figures = MACHINES[name]
    megabytes = {"darwin": 400 if figures.total < 96 * GIB else 1000}
    expected = {"MLX_MAX_OPS_PER_BUFFER": "1000", "MLX_MAX_MB_PER_BUFFER": str(megabytes.get(figures.system))}
    assert command_buffer_variables(figures) == (expected if figures.kind == "metal" else {})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CODER_30B, 98_304),
        ({"text_config": CODER_30B}, 98_304),
        ({"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}, 23_040),
        (CODER_30B | {"layer_types": ["full_attention", "sliding_attention"] * 24}, 49_152),
        (CODER_30B | {"full_attention_interval": 4}, 24_576),
        ({"num_hidden_layers": 27, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_attention_heads": 16}, 31_104),
        ({"num_hidden_layers": 24}, 0),
    ],
    ids=["attention", "nested", "no head size", "windows", "hybrid", "latent", "recurrent"],
)
def test_the_state_of_a_token_is_estimated_from_the_config(config: dict[str, object], expected: int) -> None:
    assert kv_bytes_per_token(config) == expected


GEMMA_27B = {"num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 256}


@pytest.mark.parametrize(
    ("config", "name", "score_bytes"),
    [
        (CODER_30B, "M1 Pro 32 GB", 0),
        (CODER_30B, "Linux 64 GB", 64 * 32 * 2 * 4),
        (GEMMA_27B, "M1 Pro 32 GB", 64 * 32 * 4),
        ({"text_config": GEMMA_27B}, "RTX 24 GB", 64 * 32 * 4),
        ({"num_hidden_layers": 24}, "Linux 64 GB", 0),
    ],
    ids=["a kernel without scores", "no such kernel on a CPU", "heads too large for it", "nested", "recurrent"],
)
def test_a_context_needs_room_for_attention_scores(config: dict[str, object], name: str, score_bytes: int) -> None:
    assert bytes_per_token(config, MACHINES[name].kind) == kv_bytes_per_token(config) + score_bytes


def test_what_is_recommended_fits_where_it_is_recommended() -> None:
    model = next(each for each in RECOMMENDED if "Coder-30B" in each.id)
    assert (model.size_bytes, model.kv_bytes) == (CODER_30B_BYTES, CODER_30B_TOKEN_BYTES)
    assert load_refusal(MACHINES["M1 Pro 32 GB"], CODER_30B_NEEDS) is None
