"""The store that `docs/caching.md` shows how to write."""

import re
from pathlib import Path

import pytest

from cache_backends import CacheBackend, InvalidBackendUrl, open_backend
from tests.cache_backends.conftest import value_of

PAGE = Path(__file__).parents[2] / "docs" / "caching.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's class in a module, and its lines of pyproject.toml as pip would write them down."""
    page = PAGE.read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (declared,) = re.findall(r'```toml\n\[project.entry-points."(.*?)"\]\n(.*?)```', page, re.DOTALL)
    group, points = declared
    (tmp_path / "my_package.py").write_text(source)
    metadata = tmp_path / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{points.replace(chr(34), '')}")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
async def test_it_stores_and_forgets(tmp_path: Path) -> None:
    value = b"v" * 10_000
    packed = open_backend(f"packed://?in=disk://{tmp_path}/store")
    await packed.set("k", value)
    await packed.set("late", value, ttl=0)
    assert [await value_of(packed, key) for key in ("k", "late", "other")] == [value, None, None]
    assert await packed.delete("k")
    assert not await packed.delete("k")
    await packed.set("l", value)
    assert (await packed.stats()).items == 1
    assert await packed.clear() == 1
    await packed.aclose()
    await packed.aclose()


@pytest.mark.usefixtures("installed")
async def test_what_is_damaged_is_not_there(tmp_path: Path) -> None:
    inner = f"disk://{tmp_path}/store"
    other, packed = open_backend(inner), open_backend(f"packed://?in={inner}")
    await other.set("k", b"not packed")
    assert await value_of(packed, "k") is None
    for backend in (other, packed):
        await backend.aclose()


@pytest.mark.usefixtures("installed")
async def test_it_is_a_tier_like_any(tmp_path: Path) -> None:
    tiers: CacheBackend = open_backend(["memory://", f"packed://?in=disk://{tmp_path}/store"])
    await tiers.set("k", b"v")
    assert await value_of(tiers, "k") == b"v"
    await tiers.aclose()


@pytest.mark.usefixtures("installed")
def test_mistakes_in_its_url_are_told() -> None:
    with pytest.raises(
        InvalidBackendUrl, match=r"packed://: expected the URL of another store behind \?in=, found none"
    ):
        open_backend("packed://")
    with pytest.raises(InvalidBackendUrl, match="no parameters but in, found 'on'"):
        open_backend("packed://?on=memory://")
