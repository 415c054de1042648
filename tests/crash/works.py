import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cache_backends.disk import DiskBackend
from cache_backends.memory import MemoryBackend
from service.executor.prefix.file import Buffer, DamagedFile, SpanKey, read_span, write_span
from service.recording.archive import AnswerEntry, ArchiveError, ArchiveWriter, new_header, read_entries
from service.recording.transfer import export_answers
from service.response_cache.record import AnswerRecord, encode_record
from service.storage import publish_folder, write_file
from tests.response_cache.answers import text

KEYS = ("0" * 64, "1" * 64, "2" * 64)


class Work(Protocol):
    """`prepare` makes the state before; `run` is what is ended; `check` raises if what is left is wrong, and with
    `whole` if anything is missing."""

    def prepare(self, folder: Path) -> None: ...
    def run(self, folder: Path) -> None: ...
    def check(self, folder: Path, *, whole: bool) -> None: ...


class StoreAnswers:
    def prepare(self, folder: Path) -> None:
        pass

    def run(self, folder: Path) -> None:
        asyncio.run(self._run(folder))

    def check(self, folder: Path, *, whole: bool) -> None:
        asyncio.run(self._check(folder, whole))

    async def _run(self, folder: Path) -> None:
        backend = DiskBackend(folder)
        try:
            for key in KEYS:
                await backend.set(key, key.encode() * 100)
        finally:
            await backend.aclose()

    async def _check(self, folder: Path, whole: bool) -> None:
        backend = DiskBackend(folder)
        for key in KEYS:
            found = await backend.get(key)
            assert found is None or found.value == key.encode() * 100
            assert found is not None or not whole
        await backend.aclose()


class ReplaceDamagedStore(StoreAnswers):
    def prepare(self, folder: Path) -> None:
        folder.joinpath("cache.db").write_bytes(b"no database at all\n" * 500)


class WritePrefixFiles:
    BUFFERS = (Buffer(memoryview(bytes(range(256)) * 40), "uint8", (10240,)),)

    def prepare(self, folder: Path) -> None:
        pass

    def run(self, folder: Path) -> None:
        for number in range(3):
            write_span(folder, self._key(number), (), list(self.BUFFERS))

    def check(self, folder: Path, *, whole: bool) -> None:
        found = list(folder.glob("*.prefix"))
        for path in found:
            with suppress(DamagedFile):
                _, buffers = read_span(path)
                assert [bytes(buffer.data) for buffer in buffers] == [bytes(b.data) for b in self.BUFFERS]
        assert len(found) == 3 or not whole

    def _key(self, number: int) -> SpanKey:
        return SpanKey(model="m", caller="", parent="", start=number, tokens=(1, 2, 3))


class ReplaceFile:
    OLD, NEW = b"old" * 5000, b"new" * 5000

    def prepare(self, folder: Path) -> None:
        write_file(folder / "trusted.json", self.OLD)

    def run(self, folder: Path) -> None:
        write_file(folder / "trusted.json", self.NEW)

    def check(self, folder: Path, *, whole: bool) -> None:
        found = folder.joinpath("trusted.json").read_bytes()
        assert found == self.NEW or (found == self.OLD and not whole)


class PublishModel:
    """The last step of a fetch and of a conversion. The caller builds the folder anew at each start."""

    def prepare(self, folder: Path) -> None:
        self._build(folder / "model", b"old")

    def run(self, folder: Path) -> None:
        built = folder / "built"
        self._build(built, b"new")
        publish_folder(built, folder / "model")

    def check(self, folder: Path, *, whole: bool) -> None:
        files = {path.name: path.read_bytes() for path in (folder / "model").glob("*")}
        contents = set(files.values())
        if whole:
            assert contents == {b"new"}
        # A model that is half removed lacks files, which a start notices. It never mixes old and new.
        assert len(contents) <= 1

    def _build(self, folder: Path, content: bytes) -> None:
        folder.mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            folder.joinpath(name).write_bytes(content)


class RecordAnswers:
    def prepare(self, folder: Path) -> None:
        pass

    def run(self, folder: Path) -> None:
        for key in KEYS:
            with ArchiveWriter(folder / "answers", new_header(None)) as writer:
                writer.add(AnswerEntry(key=key, stored_at=1.0, completion=text(key)))

    def check(self, folder: Path, *, whole: bool) -> None:
        entries = []
        with suppress(ArchiveError):  # there is no file, or none of its lines
            entries = list(read_entries(folder / "answers"))
        assert all(entry.completion == text(entry.key) for entry in entries)
        assert {entry.key for entry in entries} == set(KEYS) or not whole


class ExportAnswers(RecordAnswers):
    def prepare(self, folder: Path) -> None:
        RecordAnswers.run(self, folder)

    def run(self, folder: Path) -> None:
        asyncio.run(self._export(folder / "answers"))

    def check(self, folder: Path, *, whole: bool) -> None:
        super().check(folder, whole=True)

    async def _export(self, path: Path) -> None:
        store = MemoryBackend()
        for key in KEYS:
            await store.set(key, encode_record(AnswerRecord(key, 1.0, text(key))))
        await export_answers(store, path)


WORKS: dict[str, Work] = {
    "store answers": StoreAnswers(),
    "replace a damaged store": ReplaceDamagedStore(),
    "write prefix files": WritePrefixFiles(),
    "replace a file": ReplaceFile(),
    "publish a model": PublishModel(),
    "record answers": RecordAnswers(),
    "export answers": ExportAnswers(),
}
# SQLite writes them itself, so no audit event shows what it syncs. `test_disk` loses parts of its journal.
DATABASES = {"store answers", "replace a damaged store"}
