import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape

from service.cli.client import Health, NoAnswer, NotOurs, NotThere, Refused, ServerClient
from service.cli.exits import Exit, Failure
from service.cli.server_process import BackgroundServer
from service.settings import Settings

POLL_SECONDS = 0.1
LOG_LINES = 15
SILENT = Health(status="loading", model="", model_loaded=False, cache={})
OUR_CODES = {int(code) for code in (Exit.NO_MODEL, Exit.PORT_IN_USE, Exit.CONFIG)}


class Startup:
    """Every failure ends the command with one line that names the next step."""

    def __init__(self, settings: Settings, client: ServerClient) -> None:
        self._settings = settings
        self._address = client.address
        self._client = client
        self._console = Console(stderr=True)

    def use_remote(self) -> Health:
        health = self.find()
        if health is None or health is SILENT:
            raise Failure(
                Exit.UNAVAILABLE,
                f"No server answers at {self._address.root}, and it is not on this machine, so none is started. "
                "Start it there, or change VLLM_MLX_URL or baseUrl.",
            )
        return health if health.status == "healthy" else self._wait(None, health)

    @contextlib.contextmanager
    def use_local(self, server: BackgroundServer) -> Iterator[Health]:
        """Afterwards stops a server that a launcher started and nobody uses."""
        with server.order(self._say_waiting):
            health = self._ensure(server)
            server.join()
        try:
            yield health
        finally:
            server.leave()

    def _ensure(self, server: BackgroundServer) -> Health:
        health = self.find()
        if health is not None and health.status == "healthy":
            return health
        try:
            if health is None:
                server.start()
            return self._wait(server if health is None else None, health)
        except BaseException as exc:
            if health is None:
                if not isinstance(exc, Failure):
                    self._console.print("Stopping the server that was started.")
                server.stop()
            raise

    def find(self) -> Health | None:
        """None if nothing listens; SILENT if something listens and has not answered yet."""
        try:
            return self._client.health()
        except NotThere:
            return None
        except NoAnswer:
            return SILENT
        except Refused as exc:
            raise Failure(Exit.UNAVAILABLE, f"The server at {self._address.root} refuses to answer: {exc}") from None
        except NotOurs as exc:
            advice = "Change VLLM_MLX_URL or baseUrl."
            if self._address.local:
                advice = (
                    "Stop it, or choose another port: VLLM_MLX_URL=http://localhost:8082/v1, or port in "
                    ".anyclauderc.json."
                )
            raise Failure(
                Exit.PORT_IN_USE, f"What answers at {self._address.root} is not anyclaude: {exc}. {advice}"
            ) from None

    def _wait(self, started: BackgroundServer | None, found: Health | None) -> Health:
        deadline = time.monotonic() + self._settings.startup_timeout_seconds
        with self._progress(self._awaited(started, found)) as show:
            while time.monotonic() < deadline:
                if started is not None and (code := started.exit_code()) is not None:
                    raise self._died(started, code)
                health = self.find()
                if health is None and started is None:
                    raise Failure(Exit.UNAVAILABLE, "The server went away while it was loading. Run anyclaude again.")
                if health is not None and health.status == "unhealthy":
                    raise self._unhealthy(health)
                if health is not None and health.status == "healthy":
                    return health
                show(phase(health, started))
                time.sleep(POLL_SECONDS)
        raise self._timeout(started)

    @contextlib.contextmanager
    def _progress(self, text: str) -> Iterator[Callable[[str], None]]:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            yield lambda phase: None
            return
        with self._console.status("") as status:
            yield lambda phase: status.update(escape(phase))

    def _awaited(self, started: BackgroundServer | None, found: Health | None) -> str:
        if started is not None:
            return f"Starting the server; its log is {started.log}"
        if found is SILENT:
            seconds = self._settings.startup_timeout_seconds
            return f"Something listens at {self._address.root} and does not answer: waiting up to {seconds:g} s"
        return "Waiting for the server to load its model"

    def _say_waiting(self) -> None:
        self._console.print("Another anyclaude is starting or stopping the server: waiting for it.")

    def _died(self, server: BackgroundServer, code: int) -> Failure:
        lines = server.log_tail(LOG_LINES)
        start = next((i for i in reversed(range(len(lines))) if lines[i].startswith("Error: ")), len(lines) - 1)
        said = "\n".join(line.strip() for line in lines[start:]).removeprefix("Error: ") or "it said nothing"
        if code in OUR_CODES:
            return Failure(Exit(code), said)
        ended = f"The server ended while it was starting ({_ending(code)}): {said}"
        return Failure(Exit.UNAVAILABLE, f"{ended}\n{_log(server)}")

    def _timeout(self, server: BackgroundServer | None) -> Failure:
        message = (
            f"Server did not respond in timeout ({self._settings.startup_timeout_seconds:g} s). "
            "If the model needs longer to load, raise startupTimeoutSeconds; 'anyclaude doctor' checks the rest."
        )
        if server is not None:
            message += "\n" + "\n".join([_log(server), *(f"  {line}" for line in server.log_tail(LOG_LINES))])
        return Failure(Exit.UNAVAILABLE, message)

    def _unhealthy(self, health: Health) -> Failure:
        why = health.detail or "it does not say why"
        return Failure(
            Exit.UNAVAILABLE, f"The server at {self._address.root} is unhealthy: {why}. Stop it and start it again."
        )


def phase(health: Health | None, server: BackgroundServer | None) -> str:
    if health is not None and health.model:
        return health.detail or f"{health.status} {health.model}"
    lines = server.log_tail(1) if server else []
    return lines[-1] if lines else "waiting for an answer"


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _log(server: BackgroundServer) -> str:
    return f"Its log: {server.log}"
