import ipaddress
from urllib.parse import urlsplit

import msgspec


class Address(msgspec.Struct, frozen=True):
    """`root` is the URL without `/v1` and final slash."""

    root: str
    host: str
    port: int

    @property
    def local(self) -> bool:
        """True for plain HTTP on this machine. The launcher starts only such servers."""
        return self.root.startswith("http://") and is_loopback(self.host)


def parse_base_url(url: str) -> Address:
    """Raises ValueError with the expected form."""
    expected = f'expected a URL like "http://localhost:8081/v1", found "{url}"'
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as exc:
        raise ValueError(f"{expected} ({exc})") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(expected)
    if parts.username is not None:
        raise ValueError("expected a URL without a name and password in it; put the key into apiKey")
    root = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/").removesuffix("/v1").rstrip("/")
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    return Address(root, parts.hostname, port)


def base_url(host: str, port: int) -> str:
    """A server on every address is reached on loopback."""
    host = host.strip("[]")
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{name}]:{port}/v1" if ":" in name else f"http://{name}:{port}/v1"


def is_loopback(host: str) -> bool:
    """True if only this machine reaches `host`. IPv6 addresses may have brackets."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
