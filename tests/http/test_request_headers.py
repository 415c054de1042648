"""A request's headers, as endpoints look them up."""

from service.http.request_headers import read_headers, shown


def test_lines_of_one_name_are_one_list() -> None:
    lines = [(b"cache-control", b"private"), (b"accept", b"*/*"), (b"cache-control", b"no-cache, no-store")]
    headers = read_headers({"headers": lines})
    assert headers == {b"cache-control": b"private, no-cache, no-store", b"accept": b"*/*"}


def test_what_is_shown_is_short_text() -> None:
    assert shown(b"caf\xe9" + b"!" * 1000) == "caf\xe9" + "!" * 96
