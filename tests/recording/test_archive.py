"""The file that answers are kept in: what comes back, what is refused, and who can read it."""

import json
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.executor.scripted import PROFILE
from service.generation import Choice, Completion, Reasoning, Text, TokenLogprob, ToolCall, TopLogprob, Usage
from service.recording.archive import (
    AnswerEntry,
    ArchiveError,
    ArchiveWriter,
    CountEntry,
    Entry,
    new_header,
    read_entries,
    read_header,
)
from service.response_cache.key import KEY_VERSION

texts = st.text(max_size=20)
logprobs = st.builds(
    TokenLogprob,
    texts,
    st.binary(max_size=4),
    st.floats(max_value=0, allow_nan=False, allow_infinity=False),
    st.lists(st.builds(TopLogprob, texts, st.binary(max_size=4), st.just(-1.5)), max_size=2).map(tuple),
)
choices = st.builds(
    Choice,
    parts=st.lists(
        st.one_of(st.builds(Text, texts), st.builds(Reasoning, texts), st.builds(ToolCall, texts, texts, texts))
    ).map(tuple),
    finish_reason=st.sampled_from(["stop", "length", "tool_calls"]),
    logprobs=st.none() | st.lists(logprobs, max_size=2).map(tuple),
)
counts = st.integers(0, 10**9)
keys = st.text("0123456789abcdef", min_size=64, max_size=64)
answers = st.builds(
    AnswerEntry,
    key=keys,
    stored_at=st.floats(0, 2e9),
    expires_at=st.none() | st.floats(0, 2e9),
    completion=st.builds(
        Completion,
        choices=st.lists(choices, min_size=1, max_size=2).map(tuple),
        usage=st.builds(Usage, prompt_tokens=counts, completion_tokens=counts, cached_tokens=counts),
    ),
)
entries = st.one_of(answers, st.builds(CountEntry, key=keys, prompt_tokens=counts))

ANSWER = AnswerEntry(
    key="0" * 64,
    stored_at=1.0,
    completion=Completion(
        choices=(Choice(parts=(Text("hi"),), finish_reason="stop"),),
        usage=Usage(prompt_tokens=1, completion_tokens=1),
    ),
)


@given(written=st.lists(entries, max_size=4))
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_is_written_comes_back(tmp_path: Path, written: list[Entry]) -> None:
    path = tmp_path / "answers"
    path.unlink(missing_ok=True)
    with ArchiveWriter(path, new_header(PROFILE)) as writer:
        for entry in written:
            writer.add(entry)
    assert read_header(path) == new_header(PROFILE)
    assert list(read_entries(path)) == written


def test_no_flipped_bit_of_a_line_gives_another_answer(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with ArchiveWriter(path, new_header(None)) as writer:
        start = path.stat().st_size
        writer.add(ANSWER)
    intact = path.read_bytes()
    refused = 0
    for bit in range(8 * start, 8 * len(intact)):
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert list(read_entries(path)) == [ANSWER]
        except ArchiveError:
            refused += 1
    assert refused > 2000


def test_a_line_without_a_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with ArchiveWriter(path, new_header(None)) as writer:
        writer.add(ANSWER)
    path.write_text(re.sub(r',"crc":\d+', "", path.read_text()).replace("hi", "edited"))
    (entry,) = read_entries(path)
    assert isinstance(entry, AnswerEntry)
    assert entry.completion.choices[0].text == "edited"


def test_more_is_added_behind_what_is_there_and_only_the_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    for _ in range(2):
        with ArchiveWriter(path, new_header(None)) as writer:
            writer.add(ANSWER)
    assert list(read_entries(path)) == [ANSWER, ANSWER]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "answers"])
def test_a_file_that_others_could_read_becomes_the_owners_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "answers"
    if content:
        ArchiveWriter(path, new_header(None)).close()
    path.touch()
    path.chmod(0o644)
    ArchiveWriter(path, new_header(None)).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_entry_that_finds_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with ArchiveWriter(path, new_header(None)) as writer:
        writer.add(ANSWER)
        with room_for(20, path), pytest.raises(OSError, match="File too large"):
            writer.add(ANSWER)
        writer.add(ANSWER)
    assert list(read_entries(path)) == [ANSWER, ANSWER]


@contextmanager
def room_for(more: int, path: Path) -> Iterator[None]:
    """No file may grow beyond `more` bytes above the size of `path`: a write is cut there, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_of_another_model_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    ArchiveWriter(path, new_header(PROFILE)).close()
    path.chmod(0o640)
    before = path.read_bytes()
    with pytest.raises(
        ArchiveError, match=r"holds answers of scripted \(scripted-1\), and this server's are of no one"
    ):
        ArchiveWriter(path, new_header(None))
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o640


HEAD = {"format": "anyclaude-answers", "version": 1, "key_version": KEY_VERSION, "profile": None}
ENTRY = {"type": "count", "key": "a" * 64, "prompt_tokens": 3}
WRONG: list[tuple[list[object], str]] = [
    ([], "line 1: expected the head of a file of answers"),
    ([ENTRY], "line 1: expected the head of a file of answers"),
    ([{}], "line 1: expected the head of a file of answers"),
    ([{"format": "something"}], "line 1: expected the head of a file of answers"),
    ([HEAD | {"version": 2}], "expected format version 1, found 2"),
    ([HEAD | {"key_version": 0}], "found 0: no request would find its answer"),
    ([HEAD, ENTRY, ENTRY | {"key": "A" * 64}], r"line 3: expected an answer or .* at `\$.key`"),
    ([HEAD, ENTRY | {"prompt_tokens": -1}], r"line 2: .* at `\$.prompt_tokens`"),
    ([HEAD, ENTRY | {"type": "pickle"}], "line 2: .*'pickle'"),
    ([HEAD, ENTRY | {"more": 1}], "line 2: .*unknown field `more`"),
    ([HEAD, {"type": "answer", "key": "a" * 64, "stored_at": 1, "completion": {}}], "line 2: .*`choices`"),
    ([HEAD, []], "line 2"),
]


@pytest.mark.parametrize(("lines", "message"), WRONG)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, lines: list[object], message: str) -> None:
    path = tmp_path / "answers"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ArchiveError, match=message):
        list(read_entries(path))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"\x00" * 10, b'{"format": "any'])
def test_what_is_no_text_of_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="line 1"):
        read_header(path)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with ArchiveWriter(path, new_header(None)) as writer:
        writer.add(ANSWER)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArchiveError, match="line 2"):
        list(read_entries(path))


def test_a_recording_that_was_cut_short_is_continued_behind_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with ArchiveWriter(path, new_header(None)) as writer:
        writer.add(ANSWER)
        writer.add(ANSWER)
    path.write_bytes(path.read_bytes()[:-10])
    with ArchiveWriter(path, new_header(None)) as writer:
        writer.add(ANSWER)
    assert list(read_entries(path)) == [ANSWER, ANSWER]


def test_a_device_is_neither_read_nor_written(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.symlink_to("/dev/null")
    with pytest.raises(ArchiveError, match="expected a regular file, found a device"):
        read_header(device)
    with pytest.raises(OSError, match="expected a regular file, found a device"):
        ArchiveWriter(device, new_header(None))


def test_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="cannot be read: No such file"):
        read_header(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("stored_at", "1e308"),
        ("stored_at", "-1e18"),
        ("expires_at", "1e308"),
        ("completion_tokens", str(2**70)),
        ("prompt_tokens", "-1"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_its_place(tmp_path: Path, field: str, number: str) -> None:
    with ArchiveWriter(tmp_path / "file", new_header(None)) as writer:
        writer.add(msgspec.structs.replace(ANSWER, expires_at=2e9))
    header, line = (tmp_path / "file").read_text().splitlines()
    line = re.sub(rf'"{field}":[0-9.e+]+', f'"{field}":{number}', line)
    (tmp_path / "file").write_text(f"{header}\n{line}\n")
    with pytest.raises(ArchiveError, match=rf"line 2: .*{field}"):
        list(read_entries(tmp_path / "file"))
