"""What can go wrong with a folder on disk."""

import asyncio
import os
import pickle
import random
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cache_backends import CacheUnavailable
from cache_backends.disk import MAX_UNWRITTEN_USES, DiskBackend
from cache_backends.disk_store import BytesOnlyDisk, Database, RefusedRow, locked_folder
from tests.cache_backends.conftest import value_of
from tests.cache_backends.write_for_ever import written_value
from tests.patience import PATIENCE_SECONDS

MEBIBYTE = 1024**2
KILLS = 6


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o377])
async def test_nobody_else_can_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        backend = DiskBackend(tmp_path / "new" / "cache")
        await backend.set("small", b"v")
        await backend.set("large", b"v" * 200_000)
        found = modes(tmp_path)
        await backend.aclose()
    finally:
        os.umask(before)
    assert found.pop("new") == found.pop("new/cache") == 0o700
    assert set(found) == {"new/cache/cache.db", "new/cache/cache.db-wal", "new/cache/cache.db-shm"}
    assert set(found.values()) == {0o600}


async def test_a_database_with_too_wide_a_mode_is_corrected(tmp_path: Path) -> None:
    (tmp_path / "cache.db").touch(mode=0o644)
    backend = DiskBackend(tmp_path)
    await backend.set("k", b"v")
    assert set(modes(tmp_path).values()) == {0o600}
    await backend.aclose()


async def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o755)
    for value in (b"first", b"second"):
        backend = DiskBackend(folder)
        await backend.set("k", value)
        assert await value_of(backend, "k") == value
        await backend.aclose()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert set(modes(folder).values()) == {0o600}


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
async def test_a_folder_that_others_can_write_to_is_refused_and_unchanged(mode: int, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    backend = DiskBackend(folder)
    with pytest.raises(CacheUnavailable, match=rf"has mode {mode:04o}: .* Choose one below it, such as .*/anyclaude"):
        await backend.set("key", b"v")
    await backend.aclose()
    assert stat.S_IMODE(folder.stat().st_mode) == mode
    assert not list(folder.iterdir())


async def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "letter.txt").touch()
    backend = DiskBackend(folder)
    with pytest.raises(CacheUnavailable, match=r"holds other files \(letter\.txt\): expected an empty folder"):
        await backend.set("key", b"v")
    await backend.aclose()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


async def test_values_outlive_the_process(tmp_path: Path) -> None:
    first = DiskBackend(tmp_path)
    await first.set("k", b"v")
    await first.set("soon", b"v", ttl=3600)
    await first.aclose()
    second = DiskBackend(tmp_path)
    assert await value_of(second, "k") == b"v"
    found = await second.get("soon")
    assert found is not None
    assert 0 < (found.ttl or 0) <= 3600
    await second.aclose()


async def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    first, second = DiskBackend(tmp_path), DiskBackend(tmp_path)
    await first.set("k", b"from the first")
    assert await value_of(second, "k") == b"from the first"
    await second.set("k", b"from the second")
    assert await value_of(first, "k") == b"from the second"
    await first.aclose()
    await second.aclose()


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


async def make(folder: Path, **values: bytes) -> None:
    backend = DiskBackend(folder)
    for key, value in values.items():
        await backend.set(key, value)
    await backend.aclose()


def tamper(folder: Path, statement: str, *parameters: object) -> None:
    connection = sqlite3.connect(folder / "cache.db")
    with connection:
        connection.execute(statement, parameters)
    connection.close()


async def test_a_tampered_row_is_never_unpickled(tmp_path: Path) -> None:
    folder, proof = tmp_path / "cache", tmp_path / "unpickled"
    bomb = pickle.dumps(Bomb(proof))
    pickle.loads(bomb)  # noqa: S301 -- the bomb works
    proof.rmdir()
    await make(folder, inline=b"v", file=b"v", key=b"v", good=b"v")
    (folder / "bomb.val").write_bytes(bomb)
    tamper(folder, "UPDATE Cache SET mode = 4, value = ? WHERE key = 'inline'", bomb)
    tamper(folder, "UPDATE Cache SET mode = 4, value = NULL, filename = 'bomb.val' WHERE key = 'file'")
    tamper(folder, "UPDATE Cache SET raw = 0, key = ? WHERE key = 'key'", bomb)
    backend = DiskBackend(folder)
    assert [await value_of(backend, key) for key in ("inline", "file", "key", "good")] == [None, None, None, b"v"]
    await backend.set("inline", b"again")
    assert await value_of(backend, "inline") == b"again"
    await backend.clear()
    await backend.aclose()
    assert not proof.exists()


@pytest.mark.parametrize(
    "change",
    [
        "mode = 2, filename = '../secret'",
        "mode = 3, filename = '../secret'",
        "mode = 1, value = 'text'",
        "mode = 1, value = 3",
        "mode = 'x'",
        "mode = NULL",
    ],
)
async def test_a_tampered_row_reads_and_removes_no_other_file(tmp_path: Path, change: str) -> None:
    folder, secret = tmp_path / "cache", tmp_path / "secret"
    secret.write_bytes(b"not ours")
    await make(folder, k=b"v")
    tamper(folder, f"UPDATE Cache SET {change}")  # noqa: S608
    backend = DiskBackend(folder)
    assert await value_of(backend, "k") is None
    await backend.set("k", b"new")
    assert await value_of(backend, "k") == b"new"
    await backend.aclose()
    assert secret.read_bytes() == b"not ours"


@pytest.mark.parametrize("value", [3, "text", 1.5, None, ["list"], bytearray(b"x")])
def test_only_bytes_are_written(tmp_path: Path, value: object) -> None:
    disk = BytesOnlyDisk(str(tmp_path))
    with pytest.raises(RefusedRow, match="expected a value of type bytes"):
        disk.store(value, False)


def test_only_text_keys() -> None:
    disk = BytesOnlyDisk("")
    assert disk.put("k") == ("k", True)
    assert disk.get("k", 1) == "k"
    for key in (b"k", 3, None, ("k",)):
        with pytest.raises(RefusedRow, match="expected a key of type str"):
            disk.put(key)
    for row in (("k", 0), (b"\x80\x04", 0), (3, 1)):
        with pytest.raises(RefusedRow, match="expected a key of type str"):
            disk.get(*row)


def set_aside_in(folder: Path) -> list[Path]:
    return list(folder.glob("damaged-*"))


DAMAGES = {
    "text": lambda path: path.write_bytes(b"this is no database\n" * 1000),
    "zeroed header": lambda path: overwrite(path, 0, b"\0" * 100),
    "truncated": lambda path: os.truncate(path, 5000),
    "another database": lambda path: path.write_bytes(other_database(path.parent)),
    "zeroed pages": lambda path: overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096)),
    "a setting that is no text": lambda path: replace(path, b"sqlite_synchronous", b"sqlite_syn\xff\xffronous"),
    "a schema that is no text": lambda path: replace(path, b"CREATE TABLE Cache", b"CREATE T\xff\xffLE Cache"),
    "a setting that would replace a method": lambda path: tamper(
        path.parent, "INSERT INTO Settings VALUES ('get', 'gone')"
    ),
}


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def other_database(folder: Path) -> bytes:
    path = folder / "other"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE Cache (something TEXT)")
    connection.close()
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_database_is_set_aside_and_rebuilt(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    await make(tmp_path, **{f"k{index}": b"v" * 3000 for index in range(50)})
    DAMAGES[damage](tmp_path / "cache.db")
    backend = DiskBackend(tmp_path)
    assert await value_of(backend, "k7") is None
    await backend.set("k7", b"new")
    assert await value_of(backend, "k7") == b"new"
    await backend.aclose()
    (aside,) = set_aside_in(tmp_path)
    assert (aside / "cache.db").stat().st_size > 0
    assert set(modes(aside).values()) == {0o600}
    assert "it was set aside as" in caplog.text


async def test_damage_while_it_runs_is_noticed(tmp_path: Path) -> None:
    await make(tmp_path, **{f"k{index}": b"v" * 3000 for index in range(200)})
    backend = DiskBackend(tmp_path)
    assert (await backend.stats()).items == 200
    overwrite(tmp_path / "cache.db", 8192, b"\xff" * ((tmp_path / "cache.db").stat().st_size - 8192))
    for index in range(200):
        await value_of(backend, f"k{index}")
        await backend.set(f"k{index}", b"new")
    assert {await value_of(backend, f"k{index}") for index in range(200)} == {b"new"}
    await backend.aclose()
    assert len(set_aside_in(tmp_path)) == 1


async def test_damage_that_both_threads_find_is_set_aside_once(tmp_path: Path) -> None:
    """The second finds it in the database that the first has set aside, and leaves the new one alone."""
    backend = DiskBackend(tmp_path)
    await backend.set("k", b"v")
    assert await value_of(backend, "k") == b"v"
    both = threading.Barrier(2)
    attempts = 0

    def damaged_at_first(database: Database) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 2:
            both.wait(timeout=PATIENCE_SECONDS)
            raise sqlite3.DatabaseError("database disk image is malformed")

    await asyncio.gather(backend._reader.run(damaged_at_first), backend._writer.run(damaged_at_first))
    await backend.aclose()
    (aside,) = set_aside_in(tmp_path)
    assert rows(aside, "SELECT key FROM Cache") == [("k",)]


async def test_damage_that_another_process_has_set_aside_leaves_its_new_database_alone(tmp_path: Path) -> None:
    late, early = DiskBackend(tmp_path), DiskBackend(tmp_path)
    await late.set("k", b"old")
    await early.set("k", b"old")

    def damaged_once() -> Callable[[Database], None]:
        left = [sqlite3.DatabaseError("database disk image is malformed")]

        def work(_: Database) -> None:
            if left:
                raise left.pop()

        return work

    await early._writer.run(damaged_once())
    await early.set("k", b"new")
    await late._writer.run(damaged_once())
    assert await value_of(late, "k") == b"new"
    await early.aclose()
    await late.aclose()
    (aside,) = set_aside_in(tmp_path)
    assert rows(aside, "SELECT value FROM Cache") == [(b"old",)]


async def test_a_folder_that_another_process_opens_without_end_is_not_waited_for(tmp_path: Path) -> None:
    with locked_folder(tmp_path, 0):
        backend = DiskBackend(tmp_path, lock_seconds=0.05)
        with pytest.raises(CacheUnavailable, match="is locked by another process"):
            await backend.set("k", b"v")
    await backend.set("k", b"v")
    await backend.aclose()


async def test_after_an_error_of_the_disk_it_is_opened_afresh(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    await backend.set("k", b"v")
    break_open_files(tmp_path)
    with pytest.raises(CacheUnavailable, match="disk I/O error"):
        await backend.set("k", b"new")
    await backend.set("k", b"new")
    assert await value_of(backend, "k") == b"new"
    await backend.aclose()


def break_open_files(folder: Path) -> None:
    """What is open of a database answers every read and write with an error, as after an unmount."""
    files = [(folder / name).stat() for name in ("cache.db", "cache.db-wal")]
    broken = os.open(folder, os.O_RDONLY)
    for descriptor in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):
            if any(os.path.samestat(os.fstat(descriptor), file) for file in files):
                os.dup2(broken, descriptor)
    os.close(broken)


async def test_a_database_that_is_truncated_while_it_is_read_kills_nobody(tmp_path: Path) -> None:
    """A mapped file would: SIGBUS, which no exception handler sees."""
    await make(tmp_path, **{f"k{index}": b"v" * 3000 for index in range(200)})
    program = """if True:
        import asyncio, os, sys
        from pathlib import Path
        from cache_backends.disk import DiskBackend

        async def main(folder: Path) -> None:
            backend = DiskBackend(folder)
            await backend.set("new", b"v")  # with the journal in use, nobody asks the file how long it is
            assert await backend.get("k0") is not None
            os.truncate(folder / "cache.db", 5000)
            for index in range(200):
                await backend.get(f"k{index}")
            await backend.aclose()

        asyncio.run(main(Path(sys.argv[1])))
    """
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path))
    assert await process.wait() == 0


async def test_only_the_newest_damaged_one_is_kept(tmp_path: Path) -> None:
    for _ in range(3):
        (tmp_path / "cache.db").write_bytes(b"damaged" * 1000)
        await make(tmp_path, k=b"v")
    assert len(set_aside_in(tmp_path)) == 1


async def test_locked_by_another_process(tmp_path: Path) -> None:
    """Reads go on, writes are refused soon, and all is well when the lock is gone."""
    backend = DiskBackend(tmp_path, lock_seconds=0.05)
    await backend.set("k", b"v")
    assert await value_of(backend, "k") == b"v"
    other = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CacheUnavailable, match="is locked by another process"):
        await backend.set("k", b"new")
    assert await value_of(backend, "k") == b"v"
    late = DiskBackend(tmp_path, lock_seconds=0.05)
    with pytest.raises(CacheUnavailable, match="is locked by another process"):
        await value_of(late, "k")
    other.execute("ROLLBACK")
    other.close()
    await backend.set("k", b"new")
    assert await value_of(late, "k") == b"new"
    assert (await backend.stats()).errors == 1
    await backend.aclose()
    await late.aclose()


async def test_a_folder_that_cannot_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    backend = DiskBackend(tmp_path / "file" / "cache")
    for _ in range(2):
        with pytest.raises(CacheUnavailable, match="Not a directory"):
            await value_of(backend, "k")
    (said,) = (record.getMessage() for record in caplog.records)
    assert "Not a directory" in said
    assert said.endswith("going on without it until it works")
    (tmp_path / "file").unlink()
    await backend.set("k", b"v")
    assert await value_of(backend, "k") == b"v"
    assert (await backend.stats()).errors == 2
    await backend.aclose()


def test_a_limit_that_is_too_small_for_a_database(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes of at least 1048576, found 1000"):
        DiskBackend(tmp_path, max_bytes=1000)


async def test_many_reads_without_a_write_are_written_down(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    for index in range(MAX_UNWRITTEN_USES + 1):
        await backend.set(f"k{index}", b"v")
    for index in range(1, MAX_UNWRITTEN_USES + 1):
        assert await value_of(backend, f"k{index}") == b"v"
    connection = sqlite3.connect(tmp_path / "cache.db")
    unread = connection.execute("SELECT key FROM Cache WHERE access_time = store_time").fetchall()
    connection.close()
    assert unread == [("k0",)]
    await backend.aclose()


async def test_an_earlier_use_is_not_written_over_a_later_one(tmp_path: Path) -> None:
    """Of two processes, the one that read first may be the one that writes its uses down last."""
    first, second = DiskBackend(tmp_path), DiskBackend(tmp_path)
    await first.set("k", b"v")
    await value_of(first, "k")
    await value_of(second, "k")
    await second.aclose()
    used = rows(tmp_path, "SELECT access_time FROM Cache")
    await first.aclose()
    assert rows(tmp_path, "SELECT access_time FROM Cache") == used


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "cache.db")) as connection:
        return connection.execute(query).fetchall()


async def test_a_link_in_place_of_the_database_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache.db").symlink_to(target)
    backend = DiskBackend(tmp_path / "cache")
    with pytest.raises(CacheUnavailable):
        await backend.set("k", b"v")
    assert not target.exists()
    await backend.aclose()


async def test_a_full_disk_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    """The limit on the size of files stands for a disk without room."""
    backend = DiskBackend(tmp_path)
    await backend.set("k", b"v")
    assert await value_of(backend, "k") == b"v"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "cache.db-wal").stat().st_size, before[1]))
    try:
        with pytest.raises(CacheUnavailable, match=r"disk"):
            await backend.set("large", b"v" * MEBIBYTE)
        assert await value_of(backend, "k") == b"v"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await backend.set("large", b"v" * MEBIBYTE)
    assert await value_of(backend, "large") == b"v" * MEBIBYTE
    await backend.aclose()


async def test_reads_decide_what_stays_also_after_a_restart(tmp_path: Path) -> None:
    first = DiskBackend(tmp_path, max_bytes=MEBIBYTE)
    for index in range(4):
        await first.set(f"k{index}", b"v" * 200_000)
    await value_of(first, "k0")
    await first.aclose()
    second = DiskBackend(tmp_path, max_bytes=MEBIBYTE)
    await second.set("k4", b"v" * 200_000)
    await second.set("k5", b"v" * 200_000)
    assert await value_of(second, "k0") is not None
    assert await value_of(second, "k1") is None
    await second.aclose()


async def test_killed_while_writing(tmp_path: Path) -> None:
    """Whatever is there afterwards is right, what `set` had returned for is there, and nothing is set aside."""
    start = 0
    for _ in range(KILLS):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.cache_backends.write_for_ever",
            str(tmp_path),
            str(start),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(20):
            await process.stdout.readline()
        process.kill()
        written = (await process.stdout.read()).split()
        await process.wait()
        last = start + 19 + len([line for line in written if line.startswith(b"k")])
        backend = DiskBackend(tmp_path, max_bytes=4 * MEBIBYTE)
        for number in range(start, last + 2):
            found = await value_of(backend, f"k{number}")
            assert found in (written_value(f"k{number}"), None)
        assert (await backend.stats()).errors == 0
        await backend.aclose()
        start = last + 1
    assert not set_aside_in(tmp_path)


def test_a_power_failure_that_loses_what_was_not_synced_leaves_right_values(tmp_path: Path) -> None:
    """The journal is not synced at each write, so its end, or any page of it, may never have reached the disk."""

    async def write(folder: Path) -> None:
        backend = DiskBackend(folder)
        for number in range(12):
            await backend.set(f"k{number}", written_value(f"k{number}"))
        for name in ("cache.db", "cache.db-wal"):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        await backend.aclose()

    async def values(folder: Path) -> list[bytes | None]:
        backend = DiskBackend(folder)
        found = [await value_of(backend, f"k{number}") for number in range(12)]
        assert (await backend.stats()).errors == 0
        await backend.set("after", b"it works")
        assert await value_of(backend, "after") == b"it works"
        await backend.aclose()
        return found

    asyncio.run(write(tmp_path / "live"))
    right = [written_value(f"k{number}") for number in range(12)]
    database, journal = ((tmp_path / name).read_bytes() for name in ("cache.db", "cache.db-wal"))
    draw = random.Random(1)
    for case in range(30):
        folder = tmp_path / str(case)
        folder.mkdir(mode=0o700)
        at = draw.randrange(len(journal))
        lost = journal[:at] if case % 2 else journal[:at] + bytes(4096) + journal[at + 4096 :]
        (folder / "cache.db").write_bytes(database)
        (folder / "cache.db-wal").write_bytes(lost)
        assert all(
            found in (expected, None) for found, expected in zip(asyncio.run(values(folder)), right, strict=True)
        )
        assert not set_aside_in(folder)


class DiskMachine(RuleBasedStateMachine):
    """Against a dictionary, with two backends on one folder, as two processes have them. They may also begin again, and
    the database may be damaged while neither has it open. After that a value may be missing, and none may be wrong."""

    keys = st.sampled_from(["a", "b", "c"])
    which = st.integers(0, 1)

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.backends = [DiskBackend(Path(self.folder.name)) for _ in range(2)]
        self.model: dict[str, bytes] = {}
        self.damaged = False

    def close(self) -> None:
        for backend in self.backends:
            self.loop.run_until_complete(backend.aclose())

    @rule(which=which, key=keys, value=st.binary(max_size=50), ttl=st.sampled_from([None, 3600.0, 0.0]))
    def set(self, which: int, key: str, value: bytes, ttl: float | None) -> None:
        self.loop.run_until_complete(self.backends[which].set(key, value, ttl=ttl))
        self.model.pop(key, None)
        if ttl != 0:
            self.model[key] = value

    @rule(which=which, key=keys)
    def get(self, which: int, key: str) -> None:
        found = self.loop.run_until_complete(value_of(self.backends[which], key))
        if found is None and self.damaged:
            self.model.pop(key, None)
        assert found == self.model.get(key)

    @rule(which=which, key=keys)
    def delete(self, which: int, key: str) -> None:
        existed = self.loop.run_until_complete(self.backends[which].delete(key))
        expected = self.model.pop(key, None) is not None
        assert existed is expected or (self.damaged and expected)

    @rule(which=which)
    def clear(self, which: int) -> None:
        count = self.loop.run_until_complete(self.backends[which].clear())
        assert count == len(self.model) or (self.damaged and count < len(self.model))
        self.model.clear()

    @rule()
    def begin_again(self) -> None:
        self.close()
        self.backends = [DiskBackend(Path(self.folder.name)) for _ in range(2)]

    @rule(share=st.floats(0, 0.99), garbage=st.binary(min_size=1, max_size=2000))
    def damage(self, share: float, garbage: bytes) -> None:
        self.close()
        database = Path(self.folder.name, "cache.db")
        if database.exists():
            overwrite(database, int(share * database.stat().st_size), garbage)
            self.damaged = True
        self.backends = [DiskBackend(Path(self.folder.name)) for _ in range(2)]

    def teardown(self) -> None:
        if hasattr(self, "backends"):
            self.close()
            self.loop.close()
            self.folder.cleanup()


TestDiskMachine = DiskMachine.TestCase
TestDiskMachine.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)


async def test_a_locked_store_still_has_what_it_finds(tmp_path: Path) -> None:
    """When many uses are noted, a read writes them."""
    backend = DiskBackend(tmp_path, lock_seconds=0.05)
    await backend.set("key", b"value")
    assert await value_of(backend, "key") == b"value"
    backend._used = dict.fromkeys(map(str, range(MAX_UNWRITTEN_USES)), 0.0)
    with closing(sqlite3.connect(tmp_path / "cache.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await value_of(backend, "key") == b"value"
    await backend.aclose()


async def test_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    await backend.aclose()
    with pytest.raises(CacheUnavailable, match="was closed"):
        await backend.get("key")


HANG = """
import asyncio, sys, threading
from pathlib import Path
from cache_backends.disk import DiskBackend

async def main():
    backend = DiskBackend(Path(sys.argv[1]))
    hangs = threading.Event()
    reading = asyncio.create_task(backend._reader.run(lambda _: (hangs.set(), threading.Event().wait())))
    while not hangs.is_set():
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


def test_a_disk_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HANG, str(tmp_path)], timeout=PATIENCE_SECONDS, check=True)
