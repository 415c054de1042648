"""What stands in the prompt for images, documents and audio."""

import json
from typing import Any

import pytest

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import Dialect
from service.dialects.media import placeholder
from service.dialects.openai_chat import OpenAIChat
from service.dialects.openai_responses import OpenAIResponses
from service.generation import SamplingParams

END = ": this model reads text only and cannot see it]"
B64 = "A" * 400


@pytest.mark.parametrize(
    ("kind", "source", "expected"),
    [
        ("image_url", {"url": f"data:image/png;base64,{B64}"}, "[image (image/png, 300 bytes)"),
        ("image_url", {"url": "https://example.com/a.png", "detail": "high"}, "[image (https://example.com/a.png)"),
        ("image_url", "https://example.com/a.png", "[image (https://example.com/a.png)"),
        ("input_audio", {"data": B64, "format": "wav"}, "[audio (wav, 300 bytes)"),
        ("file", {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{B64}"},
         "[file (application/pdf, 300 bytes, a.pdf)"),
        ("image", {"type": "base64", "media_type": "image/jpeg", "data": B64}, "[image (image/jpeg, 300 bytes)"),
        ("document", {"file_id": "f1"}, "[document (f1)"),
        ("image", None, "[image"),
        ("image", {"url": 7}, "[image"),
        ("image", {"url": "https://example.com/" + "x" * 1000}, "[image (https://example.com/" + "x" * 80 + ")"),
    ],
)  # fmt: skip
def test_the_line_names_type_size_and_name(kind: str, source: Any, expected: str) -> None:
    assert placeholder(kind, source) == expected + END


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
AUDIO = {"type": "audio", "source": {"type": "base64", "media_type": "audio/wav", "data": "AAAA"}}
FOLDER = {"type": "document", "source": {"type": "content", "content": [IMAGE]}}
PDF = {
    "type": "document",
    "title": "Paper",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
}
USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
SHOT = {"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
CASES: list[tuple[Dialect, dict[str, Any], list[str], list[str]]] = [
    (
        AnthropicMessages(),
        {"max_tokens": 1, "messages": [{"role": "user", "content": [IMAGE, PDF]}]},
        [f"[image (image/png, 3 bytes){END}\nPaper\n[document (application/pdf, 3 bytes){END}"],
        ["messages[0].content[0].type", "messages[0].content[1].type"],
    ),
    (
        AnthropicMessages(),
        {"max_tokens": 1, "messages": [{"role": "user", "content": "x"}, USE, {"role": "user", "content": [SHOT]}]},
        [f"[image (image/png, 3 bytes){END}"],
        ["messages[2].content[0].content[0].type"],
    ),
    (
        AnthropicMessages(),
        {"max_tokens": 1, "messages": [{"role": "user", "content": [AUDIO, FOLDER]}]},
        [f"[audio (audio/wav, 3 bytes){END}\n[image (image/png, 3 bytes){END}"],
        ["messages[0].content[0].type", "messages[0].content[1].source.content[0].type"],
    ),
    (
        OpenAIChat(),
        {
            "messages": [
                {"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "https://example.com/a"}}]},
                {"role": "assistant", "audio": {"id": "a1"}, "content": "Yes."},
            ]
        },
        [f"[audio (https://example.com/a){END}", f"Yes.\n[audio{END}"],
        ["messages[0].content[0].type", "messages[1].audio"],
    ),
    (
        OpenAIChat(),
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"format": "wav"}}]}]},
        [f"[audio (wav){END}"],
        ["messages[0].content[0].type"],
    ),
    (
        OpenAIResponses(),
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a"}]}]},
        [f"[image (https://example.com/a){END}"],
        ["input[0].content[0].type"],
    ),
    (
        OpenAIResponses(),
        {
            "input": [
                CALL,
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_file", "filename": "a.pdf"}],
                },
            ]
        },
        [f"[file (a.pdf){END}"],
        ["input[1].output[0].type"],
    ),
]


@pytest.mark.parametrize(("dialect", "body", "texts", "paths"), CASES)
def test_every_dialect_puts_the_line_in_the_medias_place(
    dialect: Dialect, body: dict[str, Any], texts: list[str], paths: list[str]
) -> None:
    asked = dialect.decode(json.dumps(body).encode(), SamplingParams())
    assert [message.content for message in asked.request.messages][-len(texts) :] == texts
    assert list(asked.unread_media) == paths
