"""URLs of stores: what they open, and how a mistake in one is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cache_backends import InvalidBackendUrl, open_backend
from cache_backends.disk import DiskBackend
from cache_backends.memory import MemoryBackend
from cache_backends.tiered import TieredBackend
from cache_backends.urls import BackendUrl


async def test_memory_limits() -> None:
    stats = await open_backend("memory://?max_items=32&max_bytes=256MiB").stats()
    assert (stats.backend, stats.max_items, stats.max_bytes) == ("memory", 32, 256 * 1024**2)


async def test_a_store_in_memory_may_have_one_mebibyte() -> None:
    assert (await open_backend("memory://?max_bytes=1MiB").stats()).max_bytes == 1024**2


async def test_the_smallest_parameters(tmp_path: Path) -> None:
    backend = open_backend("memory://?max_items=1")
    await backend.set("a", b"v")
    await backend.set("b", b"v")
    assert (await backend.stats()).items == 1
    assert open_backend("redis://host?ttl=0.5&timeout=0.000001&max_connections=1")
    assert open_backend(f"disk://{tmp_path}/d?max_bytes=1MiB")


async def test_disk_path_and_limit(tmp_path: Path) -> None:
    backend = open_backend(f"disk://{tmp_path}/with%20space?max_bytes=2MiB")
    assert isinstance(backend, DiskBackend)
    assert not (tmp_path / "with space").exists()
    stats = await backend.stats()
    assert stats.max_bytes == 2 * 1024**2
    assert (tmp_path / "with space" / "cache.db").exists()
    await backend.aclose()


async def test_disk_under_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    backend = open_backend("disk://~/answers")
    await backend.set("k", b"v")
    await backend.aclose()
    assert (tmp_path / "answers" / "cache.db").exists()


async def test_a_list_makes_tiers_fastest_first(tmp_path: Path) -> None:
    backend = open_backend(["memory://", f"disk://{tmp_path}/d"])
    assert isinstance(backend, TieredBackend)
    assert [tier.backend for tier in (await backend.stats()).tiers] == ["memory", "disk"]
    await backend.aclose()


def test_a_list_of_one_is_that_one() -> None:
    assert isinstance(open_backend(["memory://"]), MemoryBackend)


MISTAKES = [
    ("", "begins with one of disk://, memory://, redis://.*found 'none'"),
    ("memory", "begins with one of"),
    ("memcached://host", "begins with one of .*found 'memcached'"),
    ("memory://host", "nothing between memory:// and its parameters, found 'host'"),
    ("memory://?max_item=3", "no parameters but max_items, max_bytes, found 'max_item'"),
    ("memory://?max_items=", "max_items to be a whole number of at least 1, found ''"),
    ("memory://?max_items=0", "max_items to be a whole number of at least 1, found '0'"),
    ("memory://?max_items=3.5", "a whole number of at least 1, found '3.5'"),
    ("memory://?max_items=3&max_items=4", "max_items once, found it twice"),
    ("memory://?max_bytes=0", "max_bytes to be a size of at least 1 byte, found '0'"),
    ("memory://?max_bytes=1", "max_bytes of at least 1MiB, found 1 bytes"),
    ("memory://?max_bytes=lots", "max_bytes to be a size such as .*, found 'lots'"),
    ("memory://#max_items=3", "no fragment"),
    ("disk://", "disk:///absolute/path"),
    ("disk:///", "disk:///absolute/path"),
    ("disk://relative/path", "disk:///absolute/path or disk://~/path, found 'relative/path'"),
    ("disk:///tmp/x?max_bytes=10KiB", "max_bytes of at least 1MiB, found 10240 bytes"),
    ("disk:///tmp/x?max_items=3", "no parameters but max_bytes, found 'max_items'"),
    ("redis://host/first", "the number of a database after the host, such as /0, found '/first'"),
    ("redis://host?prefix=", "prefix to be at least one character, found ''"),
    ("redis://host?ttl=0", "ttl to be a number of seconds above 0, found '0'"),
    ("redis://host?db=1", "no parameters but prefix, ttl, timeout, max_connections, found 'db'"),
    ("memory://host:port", "a mistake"),
    ("memory://[::1", "a mistake"),
    ("disk:///tmp/a%00b", "without the character NUL"),
    ("redis://:a%00b@host:6379/0", "without the character NUL"),
]


@pytest.mark.parametrize(("url", "message"), MISTAKES)
def test_mistakes_say_what_was_expected_and_found(url: str, message: str) -> None:
    with pytest.raises(InvalidBackendUrl, match=message):
        open_backend(url)


def test_redis_without_its_client_says_what_to_install(tmp_path: Path) -> None:
    """A `redis` package that cannot be imported, in a process of its own, stands for none."""
    (tmp_path / "redis.py").write_text("raise ImportError('none')\n")
    program = "import cache_backends; cache_backends.open_backend('redis://host')"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "InvalidBackendUrl: redis://host: expected the package redis: pip install 'anyclaude[redis]'" in ran.stderr


def test_no_url_at_all() -> None:
    with pytest.raises(InvalidBackendUrl, match="at least one"):
        open_backend([])


def test_a_password_is_never_shown() -> None:
    url = BackendUrl("redis://user:secret@host:6379/0")
    assert str(url) == "redis://host:6379/0"
    assert str(BackendUrl("redis://user:sec@ret@host:6379/0")) == "redis://host:6379/0"
    assert (url.scheme, url.host, url.port, url.path) == ("redis", "host", 6379, "/0")
    assert "secret" not in str(url.fail("this", "that"))
    assert url.without_parameters() == "redis://user:secret@host:6379/0"


def test_another_package_adds_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real installed distribution, as far as importlib.metadata can tell: a folder on the path with its metadata."""
    (tmp_path / "other_cache.py").write_text(
        "from cache_backends.memory import MemoryBackend\n"
        "class OtherBackend(MemoryBackend):\n"
        "    pass\n"
        "not_a_backend = 3\n"
    )
    metadata = tmp_path / "other_cache-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-cache\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[anyclaude.cache_backends]\n"
        "other = other_cache:OtherBackend\n"
        "number = other_cache:not_a_backend\n"
        "misspelt = other_cache:OtherBackand\n"
        "moved = another_cache:OtherBackend\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert type(open_backend("other://?max_items=3")).__name__ == "OtherBackend"
    for scheme, message in {
        "number": "other_cache:not_a_backend to be a class with a class method from_url, found 3",
        "misspelt": "other_cache:OtherBackand to be .*, found module 'other_cache' has no attribute 'OtherBackand'",
        "moved": "another_cache:OtherBackend to be .*, found No module named 'another_cache'",
    }.items():
        with pytest.raises(InvalidBackendUrl, match=message):
            open_backend(f"{scheme}://")
    with pytest.raises(InvalidBackendUrl, match="memory://, misspelt://, moved://, number://, other://, redis://"):
        open_backend("unknown://")
