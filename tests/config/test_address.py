"""What an address means: who can reach it, and where clients find it."""

import pytest

from service.config.address import base_url, is_loopback, parse_base_url


@pytest.mark.parametrize(
    ("host", "alone", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:8081/v1"),
        ("127.1.2.3", True, "http://127.1.2.3:8081/v1"),
        ("localhost", True, "http://localhost:8081/v1"),
        ("LOCALHOST", True, "http://LOCALHOST:8081/v1"),
        ("::1", True, "http://[::1]:8081/v1"),
        ("[::1]", True, "http://[::1]:8081/v1"),
        ("0.0.0.0", False, "http://127.0.0.1:8081/v1"),
        ("::", False, "http://[::1]:8081/v1"),
        ("[::]", False, "http://[::1]:8081/v1"),
        ("192.0.2.1", False, "http://192.0.2.1:8081/v1"),
        ("localhost.evil.example", False, "http://localhost.evil.example:8081/v1"),
        ("127.0.0.1.evil.example", False, "http://127.0.0.1.evil.example:8081/v1"),
    ],
)
def test_an_address_that_a_server_binds(host: str, alone: bool, url: str) -> None:
    assert is_loopback(host) is alone
    assert base_url(host, 8081) == url


@pytest.mark.parametrize("host", ["n" * 64, "a..b", "\u00fc" * 60])
def test_a_host_that_no_name_server_knows_is_no_address(host: str) -> None:
    with pytest.raises(ValueError, match='expected a URL like "http://localhost:8081/v1"'):
        parse_base_url(f"http://{host}:8081/v1")
