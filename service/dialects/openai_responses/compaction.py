"""`POST /v1/responses/compact` returns the user's messages and a summary, as the `input` that continues the
conversation."""

import msgspec

from service.dialects.base import ClientRequest, Reply, StreamEncoder
from service.dialects.body_fields import UNREAD
from service.dialects.openai_dialect import OpenAIDialect
from service.dialects.openai_responses.answer import ResponseUsage, asked_of, item_id, response_usage
from service.dialects.openai_responses.dialect import OpenAIResponses
from service.dialects.openai_responses.items import seal
from service.dialects.openai_responses.request import Asked
from service.errors import BadRequest, SummaryFailed
from service.generation import Choice, Completion, Message, SamplingParams

PROMPT = (
    "Summarize this conversation for a colleague who continues it and sees nothing else of it: what the user wants, "
    "what was found out and decided, which files and commands matter, what is done and what is left. Answer with the "
    "summary."
)


class Compacted(msgspec.Struct, tag_field="type", tag="compaction"):
    id: str
    encrypted_content: str


class UsersMessage(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    content: msgspec.Raw
    role: str = "user"
    status: str = "completed"


class CompactedResponse(msgspec.Struct, kw_only=True):
    id: str
    object: str = "response.compaction"
    created_at: int
    output: list[UsersMessage | Compacted]
    usage: ResponseUsage


class GivenItem(msgspec.Struct):
    """The `content` of a message is text or a list of parts."""

    type: str = "message"
    role: msgspec.Raw = UNREAD
    content: msgspec.Raw = UNREAD


class GivenText(msgspec.Struct, tag_field="type", tag="input_text"):
    text: msgspec.Raw


_ENCODER = msgspec.json.Encoder()
_TEXT = msgspec.json.Decoder(str)
_GIVEN = msgspec.json.Decoder(GivenItem)


class ResponseCompaction(OpenAIDialect):
    """The dialect of the endpoint. Its requests are those of `dialect.py`."""

    name = "openai_compaction"

    def __init__(self, responses: OpenAIResponses) -> None:
        self._responses = responses

    def of_caller(self, caller: str) -> "ResponseCompaction":
        return ResponseCompaction(self._responses.of_caller(caller))

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        asked = self._responses.decode(body, defaults)
        if asked.stream:
            raise BadRequest.at("stream", "a compaction is not streamed. Leave it out.")
        messages = (*asked.request.messages, Message(role="user", content=PROMPT))
        request = msgspec.structs.replace(asked.request, messages=messages, tools=(), response_format=None)
        return msgspec.structs.replace(asked, request=request)

    def encode(self, completion: Completion, reply: Reply) -> bytes:
        given = [_GIVEN.decode(item) for item in asked_of(reply).items]
        users = [item for item in given if item.type == "message" and _TEXT.decode(item.role) == "user"]
        said = [UsersMessage(item_id("msg", i, reply), _parts(item.content)) for i, item in enumerate(users)]
        summary = Compacted(item_id("cmp", len(said), reply), seal(_summary(completion.choices[0], asked_of(reply))))
        return _ENCODER.encode(
            CompactedResponse(
                id=f"resp_{reply.id}",
                created_at=reply.created,
                output=[*said, summary],
                usage=response_usage(completion.usage),
            )
        )

    def encode_stream(self, reply: Reply) -> StreamEncoder:
        raise BadRequest("A compaction is not streamed.")  # refused by `decode`


def _summary(choice: Choice, asked: Asked) -> str:
    """Raises `SummaryFailed` or `BadRequest`, so that clients keep the conversation."""
    if choice.finish_reason == "length" and asked.body.max_output_tokens is not None:
        raise BadRequest.at("max_output_tokens", "the summary is longer. Raise the value, or leave it out.")
    if choice.finish_reason == "length":
        raise SummaryFailed("The model did not finish its summary. Go on with the conversation itself.")
    if not choice.text.strip():
        raise SummaryFailed("The model wrote no summary. Go on with the conversation itself.")
    return choice.text


def _parts(content: msgspec.Raw) -> msgspec.Raw:
    """Returns a list of parts as it was sent."""
    if bytes(content).startswith(b"["):
        return content
    return msgspec.Raw(_ENCODER.encode([GivenText(content)]))
