"""What a rank checks before it follows."""

from pathlib import Path

import msgspec
import pytest

from service.executor.distributed.calls import Remove, Terms
from service.executor.distributed.follower import Unlike, accept
from service.executor.distributed.leader import SHARED_SETTINGS, without_drafts
from service.settings import Settings

OWN = Settings(home=Path("/nowhere"), max_concurrency=2, port=9000)
VERSIONS = {"mlx": "1.0", "mlx-lm": "2.0"}


def terms(**changes: object) -> Terms:
    fields: dict[str, object] = {"versions": VERSIONS, "fingerprint": "abc", "settings": {}}
    return Terms(**fields | changes)


def test_rank_0_settings_hold_where_an_engine_decides_by_them() -> None:
    settings = accept(terms(settings={"max_concurrency": 7, "parallel": "pipeline"}), VERSIONS, "abc", OWN)
    assert (settings.max_concurrency, settings.parallel, settings.port) == (7, "pipeline", 9000)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (terms(versions=VERSIONS | {"mlx": "1.1"}), r"rank 0 runs mlx 1\.1, this rank 1\.0"),
        (terms(versions=VERSIONS | {"other": "1"}), "rank 0 runs other 1, this rank None"),
        (terms(fingerprint="abd"), "its files differ"),
        (Remove(1), "expected rank 0's terms first, found Remove"),
    ],
)
def test_who_is_unlike_rank_0_does_not_follow(told: object, message: str) -> None:
    with pytest.raises(Unlike, match=message):
        accept(told, VERSIONS, "abc", OWN)


def test_shared_settings_are_settings() -> None:
    shared = {name: getattr(OWN, name) for name in SHARED_SETTINGS}
    assert accept(terms(settings=shared), VERSIONS, "abc", OWN) == OWN


def test_nothing_is_drafted(caplog: pytest.LogCaptureFixture) -> None:
    assert without_drafts(OWN) == msgspec.structs.replace(OWN, prompt_lookup=False)
    assert not caplog.records
    drafting = Settings(home=OWN.home, prompt_lookup=True, draft_model="small")
    assert without_drafts(drafting) == Settings(home=OWN.home, prompt_lookup=False)
    assert "Speculation is off" in caplog.text
