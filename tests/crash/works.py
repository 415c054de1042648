import asyncio
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.numpy import save

from cache_backends.disk import DiskBackend
from cache_backends.memory import MemoryBackend
from service.executor.prefix.file import Buffer, DamagedFile, SpanKey, read_span, write_span
from service.models.errors import InvalidModel
from service.models.gguf import convert
from service.models.progress import Silent
from service.recording.archive import AnswerEntry, ArchiveError, ArchiveWriter, new_header, read_entries
from service.recording.transfer import export_answers
from service.response_cache.record import AnswerRecord, encode_record
from service.storage import publish_folder, write_file
from tests.models.hub_server import NAME
from tests.response_cache.answers import text

KEYS = ("0" * 64, "1" * 64, "2" * 64)
HUB_FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": save({"weight": np.ones((16, 8), dtype=np.float32)}),
    "tokenizer.json": b"{}",
}
WRITE_GGUF = """
import sys
from pathlib import Path
from tests.models.tiny_gguf import write_gguf
write_gguf(Path(sys.argv[1]))
"""


class Work(Protocol):
    """`prepare` makes the state before; `run` is what is ended; `check` raises if what is left is wrong, and with
    `whole` if anything is missing."""

    def prepare(self, folder: Path) -> None: ...
    def run(self, folder: Path) -> None: ...
    def check(self, folder: Path, *, whole: bool) -> None: ...


def check_and_repeat(work: Work, folder: Path, what: str) -> None:
    """Checks what is left in `folder`, and that the work succeeds there. A failure names `what` happened."""
    try:
        work.check(folder, whole=False)
        work.run(folder)
        work.check(folder, whole=True)
    except BaseException as exc:
        exc.add_note(f"{what}, in {folder}")
        raise


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
    """In place of an older one, the last step of a fetch and of a conversion. The caller builds the folder anew at each
    start."""

    def prepare(self, folder: Path) -> None:
        self._build(folder / "model", b"old")

    def run(self, folder: Path) -> None:
        built = folder / "built"
        self._build(built, b"new")
        publish_folder(built, folder / "model")

    def check(self, folder: Path, *, whole: bool) -> None:
        contents = set(read_files(folder / "model").values())
        if whole:
            assert contents == {b"new"}
        # A model that is half removed lacks files, which a start notices. It never mixes old and new.
        assert len(contents) <= 1

    def _build(self, folder: Path, content: bytes) -> None:
        folder.mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            folder.joinpath(name).write_bytes(content)


class FetchModel:
    """From the hub that HF_ENDPOINT names, whose model has `HUB_FILES`."""

    def prepare(self, folder: Path) -> None:
        import service.models.hub  # noqa: F401 - once, and not in each fork

    def run(self, folder: Path) -> None:
        from service.models.hub import ensure_hub_model

        ensure_hub_model(NAME, folder, Silent())

    def check(self, folder: Path, *, whole: bool) -> None:
        files = read_files(folder / "models" / NAME)
        assert files == HUB_FILES or (not files and not whole)


class ConvertModel:
    """Converts and publishes as for the demo model. There, the converter is a process of its own."""

    def prepare(self, folder: Path) -> None:
        import mlx.core  # noqa: F401 - once, and not in each fork

        folder.joinpath("model.gguf").write_bytes(self._gguf)

    def run(self, folder: Path) -> None:
        built = Path(tempfile.mkdtemp(prefix="built-", dir=folder))
        try:
            convert(folder / "model.gguf", built)
        except Exception as exc:  # safetensors and tokenizers have errors of their own
            raise InvalidModel("it could not be converted") from exc
        publish_folder(built, folder / "model")

    def check(self, folder: Path, *, whole: bool) -> None:
        files = read_files(folder / "model")
        assert files == self._converted or (not files and not whole)

    @cached_property
    def _gguf(self) -> bytes:
        # In a process of its own: MLX computes in threads, which a fork would not copy.
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            subprocess.run([sys.executable, "-c", WRITE_GGUF, file.name], check=True)
            return Path(file.name).read_bytes()

    @cached_property
    def _converted(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            gguf = Path(folder, "model.gguf")
            gguf.write_bytes(self._gguf)
            built = Path(folder, "built")
            built.mkdir()
            convert(gguf, built)
            return read_files(built)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*")}


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
    "fetch a model": FetchModel(),
    "convert a model": ConvertModel(),
    "record answers": RecordAnswers(),
    "export answers": ExportAnswers(),
}
# SQLite writes them itself, so no audit event shows what it syncs. `test_disk` loses parts of its journal.
DATABASES = {"store answers", "replace a damaged store"}
# They need a hub.
FETCHES = {"fetch a model"}
