"""Claude Code, unmodified, on the demo model: what it asks is answered, and answered again without the model."""

import pytest

from tests.claude_code.claude import TERSE, ClaudeCode
from tests.server_process import ServerProcess

pytestmark = pytest.mark.model

SHORT = {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "64"}


def test_it_answers_and_the_same_prompt_in_another_process_is_a_hit(
    demo_server: ServerProcess, claude: ClaudeCode
) -> None:
    first = claude.ask(demo_server.url, "Say hello.", *TERSE, **SHORT)
    (miss,) = demo_server.new_requests(1)
    again = claude.ask(demo_server.url, "Say hello.", *TERSE, **SHORT)
    (hit,) = demo_server.new_requests(1)

    assert (first.code, first.said["is_error"]) == (0, False)
    assert first.text
    assert again.text == first.text
    assert first.said["session_id"] != again.said["session_id"]
    assert [(r["dialect"], r["stream"], r["status"], r["cache"]) for r in (miss, hit)] == [
        ("anthropic_messages", True, 200, "miss"),
        ("anthropic_messages", True, 200, "hit"),
    ]
    assert hit["prompt_tokens"] == miss["prompt_tokens"] > 500


def test_another_prompt_reads_only_what_is_new_in_it(demo_server: ServerProcess, claude: ClaudeCode) -> None:
    claude.ask(demo_server.url, "Say hello.", *TERSE, **SHORT)
    claude.ask(demo_server.url, "Say hello to everybody.", *TERSE, **SHORT)
    first, other, *_ = demo_server.new_requests(2)  # an answer that was cut is asked for again

    assert other["cache"] == "miss"
    assert other["cached_tokens"] > 0.9 * first["prompt_tokens"]


def test_the_whole_default_prompt_does_not_fit_and_claude_code_understands_why(
    demo_server: ServerProcess, claude: ClaudeCode
) -> None:
    outcome = claude.ask(demo_server.url, "hello")
    (request,) = demo_server.new_requests(1)

    assert (request["status"], request["error"]) == (400, "context_length_exceeded")
    assert (outcome.code, outcome.said["is_error"], outcome.said["terminal_reason"]) == (1, True, "prompt_too_long")
    assert outcome.text.startswith("Prompt is too long")
    assert "(limit 8192)" in outcome.text
