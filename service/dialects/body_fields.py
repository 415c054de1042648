"""Separates the fields of a body that are not read.

A body's Struct forbids unknown fields, and declares fields that change no answer as `Unread`. An answer may depend on
any other field, so these become part of the response-cache key.
"""

import re
from typing import Any, Generic, TypeVar

import msgspec

from service.dialects.json_body import check_free_form, decode

B = TypeVar("B", bound=msgspec.Struct)

Unread = msgspec.Raw
UNREAD = msgspec.Raw(b"")

_ABSENT = (b"", b"null")
_ANYTHING = msgspec.json.Decoder()
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_SORTED = msgspec.json.Encoder(order="deterministic")


class OtherFields(msgspec.Struct, frozen=True):
    """`keyed` maps paths of fields to canonical JSON text. `unknown` are paths that no Struct has, without indexes."""

    keyed: dict[str, str] = {}
    unknown: tuple[str, ...] = ()


NO_OTHER_FIELDS = OtherFields()


class FieldReader(Generic[B]):
    """Decodes bodies as `body`. `items` are the Structs of its list fields, whose unknown fields are found too. `keyed`
    are `Unread` fields that an answer may depend on."""

    def __init__(
        self, body: type[B], *, keyed: tuple[str, ...] = (), items: dict[str, type[msgspec.Struct]] | None = None
    ) -> None:
        self._decoder = msgspec.json.Decoder(body)
        self._known = _names(body)
        self._keyed = keyed
        self._items = {field: _names(item) for field, item in (items or {}).items()}

    def read(self, body: bytes, *, at: str = "") -> tuple[B, OtherFields]:
        """`at` is the field whose value the body is, if it is part of another body. Raises `BadRequest` that names the
        field."""
        try:
            return self._finished(self._decoder.decode(body), {}, at)
        except msgspec.ValidationError as exc:
            if not str(exc).startswith("Object contains unknown field"):
                return decode(self._decoder, body, at=at), OtherFields()  # raises the same, reworded
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            return decode(self._decoder, body, at=at), OtherFields()
        fields = decode(_OBJECT, body, at=at)
        unknown = _take_unknown(fields, self._known)
        for name, known in self._items.items():
            if name in fields:
                fields[name] = _without_unknown(fields[name], name, known, unknown)
        return self._finished(decode(self._decoder, _SORTED.encode(fields), at=at), unknown, at)

    def _finished(self, asked: B, unknown: dict[str, msgspec.Raw], at: str) -> tuple[B, OtherFields]:
        if at:
            unknown = {f"{at}.{name}": value for name, value in unknown.items()}
        given = {name: value for name in self._keyed if bytes(value := getattr(asked, name)) not in _ABSENT}
        if not unknown and not given:
            return asked, NO_OTHER_FIELDS
        keyed = {name: _canonical(value, name) for name, value in (unknown | given).items()}
        return asked, OtherFields(keyed, tuple(dict.fromkeys(re.sub(r"\[\d+\]", "[]", name) for name in unknown)))


def _names(struct: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(struct.__struct_encode_fields__)


def _take_unknown(fields: dict[str, msgspec.Raw], known: frozenset[str]) -> dict[str, msgspec.Raw]:
    """Removes the unknown fields and returns those that are not null."""
    taken = {name: fields.pop(name) for name in list(fields) if name not in known}
    return {name: value for name, value in taken.items() if bytes(value) not in _ABSENT}


def _without_unknown(raw: msgspec.Raw, at: str, known: frozenset[str], unknown: dict[str, msgspec.Raw]) -> msgspec.Raw:
    """Moves the unknown fields of a list's objects to `unknown`."""
    try:
        items = _OBJECTS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw
    for i, fields in enumerate(items):
        unknown |= {f"{at}[{i}].{name}": value for name, value in _take_unknown(fields, known).items()}
    return msgspec.Raw(_SORTED.encode(items))


def _canonical(value: msgspec.Raw, name: str) -> str:
    decoded: Any = decode(_ANYTHING, bytes(value), at=name)
    check_free_form(decoded, name)
    return _SORTED.encode(decoded).decode()
