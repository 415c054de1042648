"""`KEY_VERSION` rises whenever prompts or keys change."""

from pathlib import Path

import msgspec
import pytest

from tests.response_cache.golden_keys import FILE, Golden, measure, renew

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


def test_digests_are_renewed_with_the_key_version_alone(tmp_path: Path) -> None:
    file = tmp_path / "golden.json"
    file.write_bytes(msgspec.json.encode(Golden(1, ["a"])))
    with pytest.raises(SystemExit, match="Raise KEY_VERSION"):
        renew(file, Golden(1, ["b"]))
    assert msgspec.json.decode(file.read_bytes(), type=Golden) == Golden(1, ["a"])
    renew(file, Golden(2, ["b"]))
    assert msgspec.json.decode(file.read_bytes(), type=Golden) == Golden(2, ["b"])
