"""Separates the fields of a body that are not read.

A body's Structs forbid unknown fields, and declare fields that change no answer as `Unread`. An answer may depend on
any other field, so these become part of the response-cache key.
"""

import re
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from service.dialects.json_body import MAX_VALUES, check_free_form, decode
from service.errors import BadRequest

B = TypeVar("B", bound=msgspec.Struct)

Unread = msgspec.Raw
UNREAD = msgspec.Raw(b"")

REFUSES_UNKNOWN = msgspec.Meta(extra={"unknown_fields": "refused"})
"""Annotates a Struct whose unknown fields cannot be left out. `msgspec.inspect` wraps its type in `Metadata`."""

_NULL = b"null"
_ABSENT = (b"", _NULL)
_SEPARATORS = re.compile(r'[.\["]')
_ANYTHING = msgspec.json.Decoder()
_NO_TAG = msgspec.Raw(b'""')
_TAG = msgspec.json.Decoder(str)
_LEVEL = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw])
_ENCODER = msgspec.json.Encoder()
_SORTED = msgspec.json.Encoder(order="deterministic")


class OtherFields(msgspec.Struct, frozen=True):
    """`keyed` maps paths of fields to canonical JSON text. `unknown` are paths that no Struct has, without indexes."""

    keyed: dict[str, str] = {}
    unknown: tuple[str, ...] = ()


NO_OTHER_FIELDS = OtherFields()


def join_fields(*others: OtherFields) -> OtherFields:
    keyed: dict[str, str] = {}
    unknown: dict[str, None] = {}
    for each in others:
        keyed |= each.keyed
        unknown |= dict.fromkeys(each.unknown)
    return OtherFields(keyed, tuple(unknown)) if keyed else NO_OTHER_FIELDS


class FieldReader(Generic[B]):
    """`keyed` are `Unread` fields that an answer may depend on."""

    def __init__(self, kind: type[B], *, keyed: tuple[str, ...] = ()) -> None:
        self._decoder = msgspec.json.Decoder(kind)
        self._kind = kind
        self._keyed = keyed

    def read(self, body: bytes, *, at: str = "") -> tuple[B, OtherFields]:
        """`at` is the field whose value the body is, if it is part of another body. Raises `BadRequest` that names the
        field."""
        try:
            return self._finished(self._decoder.decode(body), {})
        except msgspec.ValidationError as exc:
            if not str(exc).startswith("Object contains unknown field"):
                return decode(self._decoder, body, at=at), NO_OTHER_FIELDS  # raises the same, reworded
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            return decode(self._decoder, body, at=at), NO_OTHER_FIELDS
        separation = _Separation()
        known = separation.known_part(msgspec.Raw(body), self._nesting, at)
        return self._finished(decode(self._decoder, bytes(known), at=at), separation.unknown)

    @cached_property
    def _nesting(self) -> "_Nesting | None":
        # It takes a few milliseconds, and few bodies need it.
        return _nesting_of(inspect.type_info(self._kind))

    def _finished(self, asked: B, unknown: dict[str, msgspec.Raw]) -> tuple[B, OtherFields]:
        given = {name: value for name in self._keyed if bytes(value := getattr(asked, name)) not in _ABSENT}
        if not unknown and not given:
            return asked, NO_OTHER_FIELDS
        keyed = {name: _canonical(value, name) for name, value in (unknown | given).items()}
        return asked, OtherFields(keyed, tuple(dict.fromkeys(re.sub(r"\[\d+\]", "[]", name) for name in unknown)))


class _Nesting(msgspec.Struct):
    """The Structs in a type. `fields` are those of each Struct, by its tag. `items` are those of a list. None
    stands for a type without Structs, such as a free-form object."""

    fields: dict[str, dict[str, "_Nesting | None"]] = {}
    tag_field: str | None = None
    items: "_Nesting | None" = None


def _nesting_of(kind: inspect.Type) -> _Nesting | None:
    nesting = _Nesting()
    for part in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        if isinstance(part, inspect.StructType):
            fields = {field.encode_name: _nesting_of(field.type) for field in part.fields}
            nesting.fields[str(part.tag or "")] = fields
            if part.tag_field is not None:
                nesting.tag_field = part.tag_field
                fields[part.tag_field] = None
        elif isinstance(part, inspect.ListType):
            nesting.items = _nesting_of(part.item_type)
    return nesting if nesting.fields or nesting.items else None


class _Separation:
    """`unknown` collects unknown fields by their paths. Nulls are dropped."""

    def __init__(self) -> None:
        self.unknown: dict[str, msgspec.Raw] = {}
        self._levels = 0

    def known_part(self, raw: msgspec.Raw, nesting: _Nesting | None, at: str) -> msgspec.Raw:
        """Returns the value without the unknown fields of its Structs. A malformed part stays as it is."""
        if nesting is None:
            return raw
        self._levels += 1
        if self._levels > MAX_VALUES:
            raise BadRequest.at(at, f"expected at most {MAX_VALUES} objects and lists beside fields not known here.")
        try:
            level = _LEVEL.decode(raw)
            tag = _TAG.decode(level.get(nesting.tag_field, _NO_TAG)) if isinstance(level, dict) else ""
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return raw
        if isinstance(level, list):
            items = [self.known_part(item, nesting.items, f"{at}[{i}]") for i, item in enumerate(level)]
            return msgspec.Raw(_ENCODER.encode(items))
        if tag not in nesting.fields:
            return raw
        return msgspec.Raw(_ENCODER.encode(self._known_fields(level, nesting.fields[tag], f"{at}." if at else "")))

    def _known_fields(
        self, level: dict[str, msgspec.Raw], known: dict[str, _Nesting | None], before: str
    ) -> dict[str, msgspec.Raw]:
        for name, value in level.items():
            if name not in known and bytes(value) != _NULL:
                self.unknown[before + _in_path(name)] = value
        return {
            name: self.known_part(value, known[name], before + name) for name, value in level.items() if name in known
        }


def _in_path(name: str) -> str:
    # Else `{"a.b": 1}` and `{"a": {"b": 1}}` would have one path.
    return _ENCODER.encode(name).decode() if _SEPARATORS.search(name) else name


def _canonical(value: msgspec.Raw, name: str) -> str:
    decoded: Any = decode(_ANYTHING, bytes(value), at=name)
    check_free_form(decoded, name)
    return _SORTED.encode(decoded).decode()
