"""The tests of the SDKs that fail here. The suites are made for a mock server that answers everything."""

import re
from typing import NamedTuple

CREATE_ALL = r"test_method_create_with_all_params_overload_[12]"


class Failure(NamedTuple):
    """`tests` is a regular expression for the ids of tests that all fail, each with `error` in its message."""

    tests: str
    error: str
    why: str

    def names(self, test: str) -> bool:
        return re.search(self.tests, test) is not None

    def explains(self, error: str) -> bool:
        return re.search(self.error, error) is not None


OPENAI = (
    Failure(
        r"chat/test_completions.*::test_(method|raw_response|streaming_response)_(retrieve|update|list|delete)",
        "not take GET|There is no (GET|POST|DELETE)",
        "Chat completions are not stored: `store` is refused too.",
    ),
    Failure(
        r"chat/completions/test_messages.*::test_(method|raw_response|streaming_response)_list",
        "There is no GET",
        "Chat completions are not stored.",
    ),
    Failure(rf"chat/test_completions.*::{CREATE_ALL}", "Invalid 'audio'", "The test wants an answer in audio."),
    Failure(rf"api_resources/test_completions.*::{CREATE_ALL}", "Invalid 'best_of'", "The test sends best_of=0."),
    Failure(
        r"test_embeddings.*::test_(method|raw_response|streaming_response)_create\[(strict|aiohttp)",
        "invalid for expected schema",
        "The SDK asks for base64 by itself, and its strict mode refuses base64.",
    ),
    Failure(
        r"test_models.*::test_(method|raw_response|streaming_response)_delete",
        "does not take DELETE",
        "Models are unloaded, and never deleted by clients.",
    ),
    Failure(
        r"test_responses.*::test_(method|raw_response|streaming_response)_create_overload_[12]",
        "Missing required parameter: 'input'",
        "The test sends no input.",
    ),
    Failure(rf"test_responses.*::{CREATE_ALL}", "Invalid 'background'", "The test wants a background response."),
    Failure(
        r"test_responses.*::test_(method|raw_response|streaming_response)_(retrieve_overload_1|delete|cancel)"
        r"|test_responses.*::test_method_retrieve_with_all_params_overload_1",
        "not stored here",
        "The test takes a response for granted that was never made.",
    ),
    Failure(
        r"test_responses.*::test_(method|raw_response|streaming_response)_retrieve.*_overload_2",
        "A stored response is not streamed again",
        "Stored responses are not streamed again.",
    ),
    Failure(
        r"test_responses.*::test_(method|raw_response|streaming_response)_compact\[",
        "Missing required parameter: 'input'",
        "The test sends no input.",
    ),
    Failure(
        r"test_responses.*::test_method_compact_with_all_params"
        r"|test_input_items.*::test_(method|raw_response|streaming_response)_list",
        "not stored here",
        "The test takes a response for granted that was never made.",
    ),
    Failure(
        r"test_input_tokens.*::test_(method|raw_response|streaming_response)_count\[",
        "Missing required parameter: 'input'",
        "The test sends no input.",
    ),
    Failure(
        r"test_input_tokens.*::test_method_count_with_all_params",
        "Invalid 'conversation'",
        "The test names a conversation of OpenAI's servers.",
    ),
)

ANTHROPIC = (
    Failure(
        r"messages/test_batches.*::test_(method|raw_response|streaming_response)"
        r"_(create|retrieve|list|delete|cancel)",
        "There is no (GET|POST|DELETE)",
        "There are no batches.",
    ),
    Failure(rf"api_resources/test_messages.*::{CREATE_ALL}", "Invalid 'container'", "The test names a container."),
    Failure(rf"beta/test_messages.*::{CREATE_ALL}", "'thread'|'container'", "The test names a thread."),
    Failure(
        r"beta/test_messages.*::test_method_count_tokens_with_all_params",
        "'mcp_servers'",
        "The test names an MCP server that Anthropic's servers would call.",
    ),
)
