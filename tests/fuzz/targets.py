import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import Dialect
from service.dialects.openai_chat import OpenAIChat
from service.dialects.openai_completions import OpenAICompletions
from service.dialects.openai_embeddings import OpenAIEmbeddings
from service.dialects.openai_responses import OpenAIResponses, ResponseCompaction
from service.errors import BadRequest, ServiceError
from service.executor.prefix.file import LENGTH_BYTES, MAGIC, DamagedFile, SpanHeader, read_header, read_span
from service.executor.process.call_messages import SubmitCall, ToEngine, ToServer
from service.executor.process.frames import HEADER, BadFrame, FrameReader, encode_frame
from service.generation import SamplingParams
from service.http.cache_headers import read_cache_control
from service.normalize import normalize
from service.recording.archive import ArchiveError, new_header, read_entries
from service.response_cache.key import RequestKeys
from service.response_cache.record import RECORD_VERSION, decode_record, encode_record
from service.tool_calling import FAMILIES
from tests.tool_calling.outputs import TOOLS, calls_of, choice_of, events, without_ids

Target = Callable[[bytes], None]

DEFAULTS = SamplingParams(temperature=0.6, top_p=0.95)
FAMILY_NAMES = (None, *sorted(FAMILIES))
KEY = "0" * 64


def fuzz_dialect(dialect: Dialect) -> Target:
    """What is accepted has a key and reaches the engine unchanged; what is refused has an answer."""
    keys = RequestKeys()

    def target(body: bytes) -> None:
        try:
            decoded = dialect.decode(body, DEFAULTS)
        except ServiceError as refused:
            assert 400 <= dialect.error_status(refused) < 500  # noqa: PT017
            json.loads(dialect.encode_error(refused, "req"))
            return
        request = normalize(decoded.request)
        assert keys.key("model", request) == RequestKeys().key("model", request)
        call = SubmitCall(1, request)
        assert FrameReader(list[ToEngine]).feed(encode_frame([call])) == [call]

    return target


def fuzz_record(data: bytes) -> None:
    """An odd first byte puts a right version and checksum before the rest."""
    if data[:1] and data[0] % 2:
        payload = data[1:]
        data = bytes([RECORD_VERSION]) + zlib.crc32(payload).to_bytes(4) + payload
    record = decode_record(data, KEY)
    if record is not None:
        assert record.key == KEY
        assert decode_record(encode_record(record), KEY) == record


def fuzz_archive(data: bytes) -> None:
    """An odd first byte puts a right header before the rest."""
    if data[:1] and data[0] % 2:
        data = msgspec.json.encode(new_header(None)) + b"\n" + data[1:]
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            entries = list(read_entries(Path(file.name)))
        except ArchiveError as refused:
            str(refused).encode()
        else:
            msgspec.json.encode(entries)


def fuzz_prefix_file(data: bytes) -> None:
    """An odd first byte makes what follows, up to a null byte, a header with the right length and digest, in a file of
    the right name."""
    name = "x.prefix"
    if data[:1] and data[0] % 2:
        header, _, arrays = data[1:].partition(b"\0")
        data = MAGIC + hashlib.sha256(header).digest() + len(header).to_bytes(LENGTH_BYTES, "little") + header + arrays
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            name = msgspec.json.decode(header, type=SpanHeader).key.name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        try:
            found = read_header(path)
            read, buffers = read_span(path)
        except DamagedFile:
            return
    assert read == found
    assert [len(buffer.data) for buffer in buffers] == [array.nbytes for array in found.arrays]


def fuzz_frames(data: bytes) -> None:
    """Both directions, whole and cut. An odd first byte makes the rest the body of one frame."""
    if data[:1] and data[0] % 2:
        data = HEADER.pack(len(data) - 1) + data[1:]
    for kind in (list[ToServer], list[ToEngine]):
        whole, cut = FrameReader(kind), FrameReader(kind)
        middle = len(data) // 2
        try:
            messages = whole.feed(data)
        except BadFrame:
            continue
        assert cut.feed(data[:middle]) + cut.feed(data[middle:]) == messages


def fuzz_tool_calls(data: bytes) -> None:
    """The first byte chooses the family, the second the length of the pieces."""
    if len(data) < 2:
        return
    family = FAMILY_NAMES[data[0] % len(FAMILY_NAMES)]
    size = data[1] % 16 + 1
    text = data[2:].decode(errors="replace")
    whole, counts = events([text], family)
    pieces, piece_counts = events([text[at : at + size] for at in range(0, len(text), size)], family)
    choice = choice_of(whole)
    assert without_ids(choice_of(pieces)) == without_ids(choice)
    assert piece_counts == counts
    assert all(isinstance(json.loads(arguments), dict) for _, arguments in calls_of(choice))
    assert {name for name, _ in calls_of(choice)} <= {tool.name for tool in TOOLS} or counts.calls


def fuzz_cache_control(value: bytes) -> None:
    for name in (b"cache-control", b"pragma"):
        try:
            read_cache_control({name: value})
        except BadRequest as refused:
            refused.message.encode()


TARGETS: dict[str, Target] = {
    "anthropic_messages": fuzz_dialect(AnthropicMessages()),
    "openai_chat": fuzz_dialect(OpenAIChat()),
    "openai_completions": fuzz_dialect(OpenAICompletions()),
    "openai_embeddings": fuzz_dialect(OpenAIEmbeddings()),
    "openai_responses": fuzz_dialect(OpenAIResponses()),
    "response_compaction": fuzz_dialect(ResponseCompaction(OpenAIResponses())),
    "record": fuzz_record,
    "archive": fuzz_archive,
    "prefix_file": fuzz_prefix_file,
    "frames": fuzz_frames,
    "tool_calls": fuzz_tool_calls,
    "cache_control": fuzz_cache_control,
}
