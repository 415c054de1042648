"""The official clients, as their users make them."""

import anthropic
import openai

from tests.server_process import ServerProcess


def openai_client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)


def anthropic_client(server: ServerProcess) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0)


def prompt_tokens(usage: anthropic.types.Usage) -> int:
    """The whole prompt: Anthropic counts apart what the prefix cache held, and what it has kept."""
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
