"""What a client makes of whatever may listen at an address."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.cli.client import HungUp, NotOurs, NotThere, Refused, ServerClient
from service.config.address import parse_base_url
from tests.ports import free_port

HEALTH = b'{"status": "healthy", "model": "m", "model_loaded": true, "cache": {"hits": 1}, "more": [1]}'


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


@contextmanager
def answering_once(answer: bytes) -> Iterator[str]:
    """The URL of a server that gives `answer` to one request, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as request:
                head = dict(line.lower().split(b": ", 1) for line in list(iter(request.readline, b"\r\n"))[1:])
                request.read(int(head.get(b"content-length", 0)))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@contextmanager
def answering(answer: bytes) -> Iterator[ServerClient]:
    with answering_once(answer) as url:
        yield ServerClient(parse_base_url(url), "key")


@pytest.mark.parametrize("status", ["200 OK", "503 Service Unavailable"])
def test_an_unhealthy_server_answers_too(status: str) -> None:
    with answering(http(status, HEALTH)) as client:
        assert client.health().cache == {"hits": 1}


def test_a_redirect_is_not_followed() -> None:
    """It would carry the key to wherever it leads."""
    moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with answering(moved) as client, pytest.raises(NotOurs):
        client.stats()


STRANGERS = [
    http("200 OK", b"<html>"),
    http("200 OK", b'{"status": "ok"}'),
    http("200 OK", b"[" * 100_000),
    http("404 Not Found", b"nothing here"),
    b"SSH-2.0-OpenSSH_9.6\r\n",
]


@pytest.mark.parametrize("answer", STRANGERS)
def test_a_stranger_is_known_by_what_it_says(answer: bytes) -> None:
    with answering(answer) as client, pytest.raises(NotOurs):
        client.health()


def test_a_server_that_hangs_up_has_not_answered() -> None:
    """It may be one that ends just now."""
    with answering(b"") as client, pytest.raises(HungUp):
        client.health()


def test_a_refusal_is_quoted() -> None:
    with (
        answering(http("401 Unauthorized", b'{"error": {"message": "no key"}}')) as client,
        pytest.raises(Refused) as e,
    ):
        client.model()
    assert str(e.value) == "no key"


def test_a_key_that_no_header_may_hold_is_not_sent_and_not_shown() -> None:
    address = parse_base_url(f"http://127.0.0.1:{free_port()}")
    for key in ("s3cret\n", "s3cret\u4e2d"):
        with pytest.raises(Refused, match="apiKey or baseUrl has characters that HTTP cannot send") as caught:
            ServerClient(address, key).model()
        assert "s3cret" not in str(caught.value)


def test_a_model() -> None:
    with answering(http("200 OK", b'{"object": "list", "data": [{"id": "m", "context_length": 7}]}')) as client:
        assert client.model().context_length == 7


def test_nothing() -> None:
    with pytest.raises(NotThere):
        ServerClient(parse_base_url(f"http://127.0.0.1:{free_port()}"), "key").health()
