"""`GET /dashboard/connect`."""

import asyncio
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from service.agents.agent import AgentServer, Launch
from service.agents.script import setup_script
from service.agents.table import AGENTS
from service.config import DEFAULT_KEY
from service.config.address import Address, parse_base_url
from service.endpoints.context import ServiceContext
from service.errors import BadRequest, MissingParameter
from service.http.responses import NO_STORE, json_response

# Replaces the key, which every reader of this page already has. Any key works if none is required.
KEY_PLACE = "ANYCLAUDE-API-KEY"


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """`script` is for a POSIX shell. `install` is empty for a library."""

    name: str
    title: str
    install: str
    script: str


class ConnectEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def read(self, request: Request) -> Response:
        """`root` is the server's URL as the client sees it, perhaps through a proxy."""
        root = request.query_params.get("root")
        if root is None:
            raise MissingParameter("root")
        try:
            address = parse_base_url(root)
        except ValueError as error:
            raise BadRequest.at("root", f"{error}.") from None
        clients = await asyncio.to_thread(self._clients, address)  # reads Claude Code's own settings
        key = KEY_PLACE if self._context.settings.require_api_key else ""
        return json_response({"key": key, "clients": clients}, headers=NO_STORE)

    def _clients(self, address: Address) -> list[Client]:
        settings, executor = self._context.settings, self._context.executor
        server = AgentServer(
            root=address.root,
            api_key=KEY_PLACE if settings.require_api_key else DEFAULT_KEY,
            model=executor.profile.id,
            context_length=executor.status().context_length(executor.profile),
            patience_seconds=settings.queue_timeout_seconds + settings.request_timeout_seconds,
        )
        # The home of this server's user does not exist on another machine.
        folder = settings.home / "agents" if address.local else Path("/tmp/anyclaude")  # noqa: S108 - for its reader
        agents = [
            Client(
                name=agent.name,
                title=agent.title,
                install=agent.install,
                script=setup_script(agent, Launch(server=server, folder=folder / agent.name, environ={})),
            )
            for agent in AGENTS.values()
        ]
        return [*agents, *_libraries(server)]


def _libraries(server: AgentServer) -> list[Client]:
    openai = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": server.api_key}
    anthropic = {"ANTHROPIC_BASE_URL": server.root, "ANTHROPIC_API_KEY": server.api_key}
    return [
        Client(name="openai", title="OpenAI's libraries", install="", script=_exports(openai)),
        Client(name="anthropic", title="Anthropic's libraries", install="", script=_exports(anthropic)),
    ]


def _exports(variables: dict[str, str]) -> str:
    return "\n".join(f"export {name}={value}" for name, value in variables.items())
