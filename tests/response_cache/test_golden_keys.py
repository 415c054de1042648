"""`KEY_VERSION` rises whenever prompts or keys change."""

import msgspec

from tests.response_cache.golden_keys import FILE, Golden, measure

WRITE = "write tests/response_cache/golden_keys.json anew: python -m tests.response_cache.golden_keys"


def test_prompts_and_keys_change_with_the_key_version_alone() -> None:
    golden = msgspec.json.decode(FILE.read_bytes(), type=Golden)
    measured = measure()
    assert golden.key_version == measured.key_version, f"KEY_VERSION has changed: {WRITE}"
    changed = [
        number for number, pair in enumerate(zip(golden.digests, measured.digests, strict=True)) if len({*pair}) > 1
    ]
    assert not changed, (
        f"The prompts or the keys of {len(changed)} requests have changed ({changed[:5]} ...), so stored answers would "
        f"be given to other prompts. Raise KEY_VERSION in service/response_cache/key.py, then {WRITE}"
    )
    assert len({*golden.digests}) == 50
