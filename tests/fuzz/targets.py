import asyncio
import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import get_args

import msgspec

from cache_backends.memory import MemoryBackend
from service.config.layers import ConfigError, file_layer
from service.device.figures import DeviceKind
from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import ClientRequest, Dialect, WebSearchTool
from service.dialects.openai_chat import OpenAIChat
from service.dialects.openai_completions import OpenAICompletions
from service.dialects.openai_embeddings import OpenAIEmbeddings
from service.dialects.openai_responses import OpenAIResponses, ResponseCompaction
from service.dialects.openai_responses.kept import KeptResponses, decode_kept, encode_kept
from service.endpoints.tokens import AnswerTokens, detokenize, tokenize
from service.errors import BadRequest, ServiceError
from service.executor.prefix.file import LENGTH_BYTES, MAGIC, DamagedFile, SpanHeader, read_header, read_span
from service.executor.process.call_messages import SubmitCall, ToEngine, ToServer
from service.executor.process.frames import HEADER, BadFrame, FrameReader, encode_frame
from service.executor.scripted import ScriptedExecutor
from service.generation import SamplingParams
from service.http.cache_headers import read_cache_control
from service.http.responses import json_response
from service.model_registry.registry import ModelRegistry
from service.models.errors import InvalidModel
from service.models.folder import load_needs
from service.models.profile import read_properties
from service.normalize import normalize
from service.recording.archive import ArchiveError, new_header, read_entries
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.documents import pack, unpack
from service.response_cache.key import RequestKeys
from service.response_cache.record import RECORD_VERSION, decode_record, encode_record
from service.response_cache.replicas import read_note
from service.settings import Settings
from service.tool_calling import FAMILIES
from service.web_search.searxng import MAX_RESULTS, MAX_URL_CHARS, read_results
from tests.no_home import NO_HOME
from tests.tool_calling.outputs import TOOLS, calls_of, choice_of, events, without_ids

Target = Callable[[bytes], None]

DEFAULTS = SamplingParams(temperature=0.6, top_p=0.95)
FAMILY_NAMES = (None, *sorted(FAMILIES))
KEY = "0" * 64
RESPONSE = "resp_1"


def fuzz_dialect(dialect: Dialect, decode: Callable[[bytes, SamplingParams], ClientRequest] | None = None) -> Target:
    """What is accepted has a key and reaches the engine unchanged; what is refused has an answer."""
    keys = RequestKeys()
    read = decode or dialect.decode

    def target(body: bytes) -> None:
        try:
            decoded = read(body, DEFAULTS)
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


def fuzz_kept_response(data: bytes) -> None:
    """An odd first byte puts a right checksum before the rest. A response that is read can be read again, and its
    conversation goes on or is refused."""
    if data[:1] and data[0] % 2:
        data = pack(RESPONSE, data[1:])
    document = unpack(RESPONSE, data)
    response = None if document is None else decode_kept(document)
    if response is None:
        return
    again = decode_kept(encode_kept(response))
    assert again is not None
    assert (list(map(bytes, again.items)), again.encoded) == (list(map(bytes, response.items)), response.encoded)
    kept = KeptResponses()
    kept.restore("", RESPONSE, response)
    with suppress(ServiceError):
        OpenAIResponses(kept).decode(
            msgspec.json.encode({"model": "m", "input": "on", "previous_response_id": RESPONSE}), DEFAULTS
        )


def fuzz_tokens(answer: AnswerTokens) -> Target:
    """What is accepted is answered."""
    executor = ScriptedExecutor()
    cached = CachingExecutor(executor, MemoryBackend(), Settings(home=NO_HOME))
    registry = ModelRegistry({executor.profile.id: executor}, cached)

    async def run(body: bytes) -> None:
        with suppress(ServiceError):
            json_response(await answer(registry, {}, body))

    return lambda body: asyncio.run(run(body))


def fuzz_note(data: bytes) -> None:
    """Notes of other versions are read too."""
    read_note(data.decode(errors="replace"))


def fuzz_config_file(content: bytes) -> None:
    try:
        layer = file_layer(Path("/project/.anyclauderc.json"), content)
    except ConfigError as refused:
        str(refused).encode()
    else:
        assert layer.keys() <= set(Settings.__struct_fields__)


def fuzz_model_config(content: bytes) -> None:
    """The rest of the folder is right."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_bytes(content)
        (folder / "model.safetensors").write_bytes(bytes(8))
        for kind in get_args(DeviceKind):
            try:
                needs = load_needs(kind, folder)
                profile = read_properties(folder, Settings(home=NO_HOME), home=folder)
            except InvalidModel as refused:
                str(refused).encode()
            else:
                assert needs.token_bytes >= 0
                assert profile.context_length > 0


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
        in_parts = cut.feed(data[:middle]) + cut.feed(data[middle:])
        assert repr(in_parts) == repr(messages)  # not a number differs from itself


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


def fuzz_search_results(body: bytes) -> None:
    """What is read is short and can be sent on. The second tool allows one domain only."""
    for tool in (WebSearchTool(name="s"), WebSearchTool(name="s", allowed_domains=("bern.example/a",))):
        try:
            results = read_results(body, tool)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        assert len(results) <= MAX_RESULTS
        assert all(0 < len(result.url) <= MAX_URL_CHARS and result.title for result in results)
        msgspec.json.encode(results)


TARGETS: dict[str, Target] = {
    "anthropic_messages": fuzz_dialect(AnthropicMessages()),
    "anthropic_count": fuzz_dialect(AnthropicMessages(), AnthropicMessages().decode_count),
    "openai_chat": fuzz_dialect(OpenAIChat()),
    "openai_completions": fuzz_dialect(OpenAICompletions()),
    "openai_embeddings": fuzz_dialect(OpenAIEmbeddings()),
    "openai_responses": fuzz_dialect(OpenAIResponses()),
    "responses_count": fuzz_dialect(OpenAIResponses(), OpenAIResponses().decode_count),
    "response_compaction": fuzz_dialect(ResponseCompaction(OpenAIResponses())),
    "tokenize": fuzz_tokens(tokenize),
    "detokenize": fuzz_tokens(detokenize),
    "kept_response": fuzz_kept_response,
    "lease_note": fuzz_note,
    "config_file": fuzz_config_file,
    "model_config": fuzz_model_config,
    "record": fuzz_record,
    "archive": fuzz_archive,
    "prefix_file": fuzz_prefix_file,
    "frames": fuzz_frames,
    "tool_calls": fuzz_tool_calls,
    "cache_control": fuzz_cache_control,
    "search_results": fuzz_search_results,
}
