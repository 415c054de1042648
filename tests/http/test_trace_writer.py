"""Traces are complete, private, and bounded."""

import json
import logging
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.http.traces import Exchange, TraceWriter, file_name, render

KEY = "sk-a-key-that-is-long"
EXCHANGE = Exchange(
    request_id="req_1",
    started=1_700_000_000.5,
    method="POST",
    path="/v1/messages?beta=true",
    request_headers={"Authorization": f"Bearer {KEY}", "X-Api-Key": "short", "accept": "*/*"},
    request_body=json.dumps({"messages": [{"role": "user", "content": f"my key is {KEY}; short"}]}).encode(),
    status=200,
    response_headers={"content-type": "text/event-stream", "set-cookie": "a=b"},
    response_body=b"event: ping\ndata: {}\n\n\xff",
)


def written(folder: Path, exchanges: list[Exchange], max_bytes: int = 10**9) -> list[str]:
    writer = TraceWriter(folder, max_bytes)
    for exchange in exchanges:
        writer.write(exchange)
    writer.close()
    return sorted(path.name for path in folder.iterdir())


def test_a_trace_holds_both_sides_without_the_keys(tmp_path: Path) -> None:
    (name,) = written(tmp_path / "traces", [EXCHANGE])
    assert name == "20231114T221320.500000Z-req_1.json"
    text = (tmp_path / "traces" / name).read_text()
    assert KEY not in text
    assert json.loads(text) == {
        "request_id": "req_1",
        "started": "2023-11-14T22:13:20.500000+00:00",
        "request": {
            "method": "POST",
            "path": "/v1/messages?beta=true",
            "headers": {"Authorization": "[redacted]", "X-Api-Key": "[redacted]", "accept": "*/*"},
            "body": {"messages": [{"role": "user", "content": "my key is [redacted]; short"}]},
        },
        "response": {
            "status": 200,
            "headers": {"content-type": "text/event-stream", "set-cookie": "[redacted]"},
            "body": "event: ping\ndata: {}\n\n\ufffd",
        },
    }


def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir(mode=0o755)
    written(folder, [EXCHANGE])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def numbered(count: int) -> list[Exchange]:
    return [
        msgspec.structs.replace(EXCHANGE, request_id=f"req_{i:02}", started=EXCHANGE.started + i) for i in range(count)
    ]


def test_the_oldest_make_room(tmp_path: Path) -> None:
    exchanges = numbered(10)
    size = len(render(exchanges[0]))
    names = [file_name(exchange) for exchange in exchanges]
    assert written(tmp_path, exchanges[:6], max_bytes=3 * size) == names[3:6]
    assert written(tmp_path, exchanges[6:8], max_bytes=3 * size) == names[5:8], "a later run counts what is there"


def test_one_that_is_larger_than_all_may_be_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert written(tmp_path, [EXCHANGE], max_bytes=100) == []
    assert "req_1 is larger than all traces may be" in caplog.text


@pytest.mark.parametrize("request_id", ["../../etc/passwd", "a/b", "x" * 500, "\n", ".."])
def test_a_request_id_cannot_leave_the_folder(tmp_path: Path, request_id: str) -> None:
    (name,) = written(tmp_path / "traces", [msgspec.structs.replace(EXCHANGE, request_id=request_id)])
    assert len(name) < 100
    assert [path.name for path in tmp_path.iterdir()] == ["traces"]


@pytest.mark.parametrize(
    ("body", "shown"),
    [(b"", ""), (b"{", "{"), (b"[" * 100_000, "[" * 100_000), (b'{"a": 1}', {"a": 1}), (b"\xed\xa0\x80", "\ufffd" * 3)],
)
def test_any_body_can_be_shown(body: bytes, shown: Any) -> None:
    trace = json.loads(render(msgspec.structs.replace(EXCHANGE, request_body=body)))
    assert trace["request"]["body"] == shown


def test_a_body_that_cannot_be_shown_costs_no_other_trace(tmp_path: Path) -> None:
    """Close to Python's limit of recursion, JSON can be read and not be written."""
    deep = [msgspec.structs.replace(EXCHANGE, request_body=b'{"a":' * d + b"1" + b"}" * d) for d in range(950, 1000)]
    assert written(tmp_path / "traces", [*deep, msgspec.structs.replace(EXCHANGE, started=1.0)])


def test_a_disk_that_cannot_be_written_costs_no_more_than_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    writer = TraceWriter(tmp_path / "file" / "traces", 1000_000)
    with caplog.at_level(logging.WARNING):
        writer.write(EXCHANGE)
        writer.close()
    assert "the trace of req_1 could not be written: Not a directory" in caplog.text
