"""OpenAI's Responses API: `POST /v1/responses` and `POST /v1/responses/compact`.

`dialect.py` is the dialect. `request.py`, `items.py` and `tools.py` decode a body; `answer.py` encodes a finished
response, `stream.py` its events. `kept.py` remembers responses that later requests continue. `truncation.py` shortens a
conversation that does not fit; `compaction.py` is the dialect that summarizes one.
"""

from service.dialects.openai_responses.compaction import ResponseCompaction
from service.dialects.openai_responses.dialect import OpenAIResponses

__all__ = ["OpenAIResponses", "ResponseCompaction"]
