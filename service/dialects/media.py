"""Text that replaces images, documents and audio for models that read only text. Clients send such a part again in
every later turn, so an error would end the conversation."""

from typing import Any

from service.errors import SHOWN_CHARS

_KINDS = {
    "image_url": "image",
    "input_image": "image",
    "computer_screenshot": "screenshot",
    "input_audio": "audio",
    "audio_url": "audio",
    "input_file": "file",
    "video_url": "video",
}
_NAMES = ("filename", "title", "url", "image_url", "file_url", "file_id")
_DATA = ("data", "file_data", "url", "image_url")
_TYPES = ("media_type", "mime_type", "format")


def placeholder(kind: str, *sources: Any) -> str:
    """`sources` are the part's fields as the client sent them: texts or objects."""
    fields: dict[str, str] = {}
    for source in sources:
        found = {"url": source} if isinstance(source, str) else source if isinstance(source, dict) else {}
        fields.update({name: value for name, value in found.items() if isinstance(value, str)})
    details = [_media_type(fields), _size(fields), _name(fields)]
    shown = ", ".join(detail for detail in details if detail)
    kind = _KINDS.get(kind, kind)
    return f"[{kind}{f' ({shown})' if shown else ''}: this model reads text only and cannot see it]"


def _media_type(fields: dict[str, str]) -> str:
    for name in _DATA:
        if fields.get(name, "").startswith("data:"):
            return fields[name][len("data:") :].partition(";")[0].partition(",")[0][:SHOWN_CHARS]
    return next((fields[name][:SHOWN_CHARS] for name in _TYPES if fields.get(name)), "")


def _size(fields: dict[str, str]) -> str:
    for name in _DATA:
        value = fields.get(name, "")
        if value and (name in ("data", "file_data") or value.startswith("data:")):
            return f"{3 * len(value.rpartition(',')[2]) // 4} bytes"
    return ""


def _name(fields: dict[str, str]) -> str:
    names = (fields[name] for name in _NAMES if fields.get(name))
    return next((name[:SHOWN_CHARS] for name in names if not name.startswith("data:")), "")
