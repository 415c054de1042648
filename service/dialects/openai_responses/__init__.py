"""OpenAI's Responses API: `POST /v1/responses` and `POST /v1/responses/compact`.

`responses` is the dialect. `request` and `items` decode a body, `tools` its tools; `answer` encodes a finished
response, `stream` its events. `kept` remembers responses, so that later requests can continue them; `truncation`
shortens a conversation that does not fit, `compaction` is the dialect that summarizes one.
"""

from service.dialects.openai_responses.compaction import ResponseCompaction
from service.dialects.openai_responses.responses import OpenAIResponses

__all__ = ["OpenAIResponses", "ResponseCompaction"]
