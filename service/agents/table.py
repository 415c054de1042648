import json

from service.agents.agent import Agent, Launch, Setup
from service.agents.claude_code import claude_setup

PROVIDER = "anyclaude"
KEY_VARIABLE = "ANYCLAUDE_API_KEY"


def _codex(launch: Launch) -> Setup:
    server = launch.server
    provider = f"model_providers.{PROVIDER}"
    settings: dict[str, object] = {
        "model": server.model,
        "model_provider": PROVIDER,
        "model_context_window": server.context_length,
        f"{provider}.name": PROVIDER,
        f"{provider}.base_url": server.base_url,
        f"{provider}.env_key": KEY_VARIABLE,
        f"{provider}.wire_api": "responses",
        f"{provider}.stream_idle_timeout_ms": round(1000 * server.patience_seconds),
    }
    pairs = [("-c", f"{name}={json.dumps(value)}") for name, value in settings.items()]
    return Setup(variables={KEY_VARIABLE: server.api_key}, arguments=tuple(part for pair in pairs for part in pair))


def _opencode(launch: Launch) -> Setup:
    return Setup(variables={"OPENCODE_CONFIG_CONTENT": _opencode_configuration(launch)})


def _kilo(launch: Launch) -> Setup:
    """Kilo is a fork of OpenCode."""
    return Setup(variables={"KILO_CONFIG_CONTENT": _opencode_configuration(launch)})


def _opencode_configuration(launch: Launch) -> str:
    server = launch.server
    limit = {"context": server.context_length, "output": server.output_tokens}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": PROVIDER,
        "options": {"baseURL": server.base_url, "apiKey": server.api_key},
        "models": {server.model: {"name": server.model, "limit": limit}},
    }
    name = f"{PROVIDER}/{server.model}"
    return json.dumps({"provider": {PROVIDER: provider}, "model": name, "small_model": name, "share": "disabled"})


def _qwen(launch: Launch) -> Setup:
    """System settings override the user's own."""
    server = launch.server
    generation = {"contextWindowSize": server.context_length, "timeout": round(1000 * server.patience_seconds)}
    settings = {
        "model": {"name": server.model, "generationConfig": generation},
        "security": {"auth": {"selectedType": "openai", "baseUrl": server.base_url, "apiKey": server.api_key}},
        "privacy": {"usageStatisticsEnabled": False},
    }
    variables = {
        "QWEN_CODE_SYSTEM_SETTINGS_PATH": str(launch.folder / "settings.json"),
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": server.api_key,
        "OPENAI_MODEL": server.model,
    }
    return Setup(
        variables=variables,
        arguments=("--auth-type", "openai"),
        files={"settings.json": json.dumps(settings, indent=2)},
    )


def _pi(launch: Launch) -> Setup:
    """An extension adds the provider to pi's own settings."""
    server = launch.server
    model = {
        "id": server.model,
        "name": server.model,
        "reasoning": False,
        "input": ["text"],
        "cost": dict.fromkeys(("input", "output", "cacheRead", "cacheWrite"), 0),
        "contextWindow": server.context_length,
        "maxTokens": server.output_tokens,
    }
    provider = {"baseUrl": server.base_url, "apiKey": KEY_VARIABLE, "api": "openai-completions", "models": [model]}
    extension = (
        f"export default (pi) => pi.registerProvider({json.dumps(PROVIDER)}, {json.dumps(provider, indent=2)});\n"
    )
    arguments = ("--extension", str(launch.folder / "anyclaude.js"), "--provider", PROVIDER, "--model", server.model)
    return Setup(variables={KEY_VARIABLE: server.api_key}, arguments=arguments, files={"anyclaude.js": extension})


def _aider(launch: Launch) -> Setup:
    server = launch.server
    name = f"openai/{server.model}"
    metadata = {
        name: {
            "max_input_tokens": server.context_length,
            "max_output_tokens": server.output_tokens,
            "input_cost_per_token": 0,
            "output_cost_per_token": 0,
            "litellm_provider": "openai",
            "mode": "chat",
        }
    }
    arguments = ("--model", name, "--weak-model", name, "--model-metadata-file", str(launch.folder / "models.json"))
    variables = {
        "OPENAI_API_BASE": server.base_url,
        "OPENAI_API_KEY": server.api_key,
        "AIDER_TIMEOUT": str(round(server.patience_seconds)),
        "AIDER_SHOW_MODEL_WARNINGS": "false",
        "AIDER_CHECK_UPDATE": "false",
    }
    return Setup(variables=variables, arguments=arguments, files={"models.json": json.dumps(metadata, indent=2)})


def _cline(launch: Launch) -> Setup:
    """Cline's background process keeps its first settings, so each run has its own."""
    server = launch.server
    settings = {"provider": "openai-compatible", "apiKey": server.api_key, "model": server.model}
    chosen = {"settings": settings | {"baseUrl": server.base_url}, "tokenSource": "manual"}
    chosen["updatedAt"] = "2026-01-01T00:00:00.000Z"
    providers = {"version": 1, "lastUsedProvider": "openai-compatible", "providers": {"openai-compatible": chosen}}
    return Setup(
        arguments=("--data-dir", str(launch.folder)), files={"settings/providers.json": json.dumps(providers, indent=2)}
    )


def _copilot(launch: Launch) -> Setup:
    server = launch.server
    variables = {
        "COPILOT_OFFLINE": "true",
        "COPILOT_PROVIDER_TYPE": "openai",
        "COPILOT_PROVIDER_BASE_URL": server.base_url,
        "COPILOT_PROVIDER_API_KEY": server.api_key,
        "COPILOT_PROVIDER_MAX_PROMPT_TOKENS": str(server.context_length - server.output_tokens),
        "COPILOT_PROVIDER_MAX_OUTPUT_TOKENS": str(server.output_tokens),
        "COPILOT_MODEL": server.model,
    }
    return Setup(variables=variables)


def _continue(launch: Launch) -> Setup:
    server = launch.server
    options = {"contextLength": server.context_length, "maxTokens": server.output_tokens}
    model = {
        "name": server.model,
        "provider": "openai",
        "model": server.model,
        "apiBase": server.base_url,
        "apiKey": server.api_key,
        "roles": ["chat", "edit", "apply"],
        "defaultCompletionOptions": options,
        "requestOptions": {"timeout": round(1000 * server.patience_seconds)},
    }
    configuration = {"name": PROVIDER, "version": "1.0.0", "schema": "v1", "models": [model]}
    return Setup(
        arguments=("--config", str(launch.folder / "config.yaml")),
        files={"config.yaml": json.dumps(configuration, indent=2)},
    )


AGENTS = {
    agent.name: agent
    for agent in (
        Agent(
            name="claude", title="Claude Code", install="npm install -g @anthropic-ai/claude-code", prepare=claude_setup
        ),
        Agent(name="codex", title="Codex", install="npm install -g @openai/codex", prepare=_codex),
        Agent(name="opencode", title="OpenCode", install="npm install -g opencode-ai", prepare=_opencode),
        Agent(name="qwen", title="Qwen Code", install="npm install -g @qwen-code/qwen-code", prepare=_qwen),
        Agent(name="pi", title="pi", install="npm install -g @mariozechner/pi-coding-agent", prepare=_pi),
        Agent(name="aider", title="Aider", install="pipx install aider-chat", prepare=_aider),
        Agent(name="cline", title="Cline", install="npm install -g cline", prepare=_cline),
        Agent(name="copilot", title="GitHub Copilot CLI", install="npm install -g @github/copilot", prepare=_copilot),
        Agent(name="kilo", title="Kilo Code", install="npm install -g @kilocode/cli", prepare=_kilo),
        Agent(name="cn", title="Continue", install="npm install -g @continuedev/cli", prepare=_continue),
    )
}
