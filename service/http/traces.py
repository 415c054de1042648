"""Exchanges in files that only their owner can read, without API keys."""

import json
import logging
import os
import queue
import re
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from service.storage import FILE_MODE, FOLDER_MODE, files_under, private_folder

logger = logging.getLogger("anyclaude.traces")

SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie", "set-cookie"})
REDACTED = "[redacted]"
# A shorter credential may be an ordinary word of a body.
SHORTEST_SECRET = 12
MAX_WAITING = 64


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """`started` is in Unix seconds. `response_body` may be incomplete."""

    request_id: str
    started: float
    method: str
    path: str
    request_headers: Mapping[str, str]
    request_body: bytes
    status: int
    response_headers: Mapping[str, str]
    response_body: bytes


class TraceWriter:
    """Writes files in its own thread, so a slow disk delays no answer. Removes the oldest beyond `max_bytes`."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._waiting: queue.Queue[Exchange | None] = queue.Queue(MAX_WAITING)
        self._files: deque[tuple[Path, int]] = deque()
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    def write(self, exchange: Exchange) -> None:
        """Returns at once. Drops the exchange if too many are queued."""
        try:
            self._waiting.put_nowait(exchange)
        except queue.Full:
            logger.warning(
                "the trace of %s is left out: %d are waiting to be written", exchange.request_id, MAX_WAITING
            )

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            self._files.extend(self._existing())
        except OSError as exc:
            logger.warning("traces cannot be kept in %s: %s", self._folder, exc.strerror)
        while (exchange := self._waiting.get()) is not None:
            try:
                self._store(exchange)
            except OSError as exc:
                logger.warning("the trace of %s could not be written: %s", exchange.request_id, exc.strerror)
            except Exception as exc:  # as for JSON that can be read but is too deep to write: the next one goes on
                logger.warning("the trace of %s could not be made: %s", exchange.request_id, exc)

    def _existing(self) -> list[tuple[Path, int]]:
        private_folder(self._folder).chmod(FOLDER_MODE)
        return sorted((path, status.st_size) for path, status in files_under(self._folder) if path.suffix == ".json")

    def _store(self, exchange: Exchange) -> None:
        content = render(exchange)
        self._make_room(len(content))
        if len(content) > self._max_bytes:
            logger.warning("the trace of %s is larger than all traces may be: left out", exchange.request_id)
            return
        path = self._folder / file_name(exchange)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE)
        with open(descriptor, "wb") as file:
            file.write(content)
        self._files.append((path, len(content)))

    def _make_room(self, size: int) -> None:
        total = size + sum(stored for _, stored in self._files)
        while self._files and total > self._max_bytes:
            path, stored = self._files.popleft()
            path.unlink(missing_ok=True)
            total -= stored


def file_name(exchange: Exchange) -> str:
    """`20250131T120000.123456Z-REQUESTID.json`. Names sort by time."""
    time = datetime.fromtimestamp(exchange.started, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return f"{time}-{_safe(exchange.request_id)}.json"


def find_trace(folder: Path, request_id: str) -> bytes | None:
    for path in sorted(folder.glob(f"*Z-{_safe(request_id)}.json"), reverse=True):
        with suppress(OSError):  # the oldest are removed at any time
            return path.read_bytes()
    return None


def _safe(request_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", request_id)[:64]


def render(exchange: Exchange) -> bytes:
    """A body that is not JSON becomes a string."""
    secrets = _secrets(exchange.request_headers)
    trace = {
        "request_id": exchange.request_id,
        "started": datetime.fromtimestamp(exchange.started, UTC).isoformat(),
        "request": {
            "method": exchange.method,
            "path": exchange.path,
            "headers": _headers(exchange.request_headers),
            "body": _body(exchange.request_body, secrets),
        },
        "response": {
            "status": exchange.status,
            "headers": _headers(exchange.response_headers),
            "body": _body(exchange.response_body, secrets),
        },
    }
    return json.dumps(trace, indent=1).encode()


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: REDACTED if name.lower() in SECRET_HEADERS else value for name, value in headers.items()}


def _secrets(headers: Mapping[str, str]) -> list[str]:
    """An agent that prints its environment also sends credentials in a body."""
    values = [value for name, value in headers.items() if name.lower() in SECRET_HEADERS]
    credentials = [value.removeprefix("Bearer ").strip() for value in values]
    return [credential for credential in credentials if len(credential) >= SHORTEST_SECRET]


def _body(body: bytes, secrets: list[str]) -> Any:
    text = body.decode(errors="replace")
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
