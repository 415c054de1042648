"""What docker-compose.yml runs, as processes on loopback: servers, Redis, nginx and Prometheus, with the same files."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.cache_backends.redis_server import RedisServer
from tests.deployment.programs import require
from tests.patience import PATIENCE_SECONDS, until
from tests.ports import free_port
from tests.server_process import environment

DEPLOY = Path(__file__).parents[2] / "deploy"
API_KEY = "a-secret"

NGINX_MAIN = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    log_format tried '$status $upstream_addr';
    access_log {folder}/access.log tried;
    include {folder}/anyclaude.conf;
}}
"""


class Program:
    """A process on a port of loopback."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process = process
        self._log = log

    def until_answers(self, path: str) -> None:
        def answers() -> bool:
            assert self._process.poll() is None, f"it has ended:\n{self._log.read_text()}"
            try:
                return self._request(path).status_code == 200
            except httpx.TransportError:
                return False

        until(answers, f"{path} of {self.url}")

    def get(self, path: str, **parameters: str) -> Any:
        response = self._request(path, parameters)
        response.raise_for_status()
        return response.json()

    def _request(self, path: str, parameters: dict[str, str] | None = None) -> httpx.Response:
        url = self.url + path
        return httpx.get(url, params=parameters, headers=AUTHORIZED, trust_env=False, timeout=PATIENCE_SECONDS)

    def kill(self) -> None:
        """As a crash would: without a word."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        finally:
            self._process.kill()


AUTHORIZED = {"authorization": f"Bearer {API_KEY}"}


class Topology:
    """All of it. The load balancer's log of what it tried is in `tried`."""

    def __init__(self, folder: Path, running: ExitStack, server: tuple[str, ...]) -> None:
        self._folder = folder
        self._running = running
        self.redis = RedisServer(folder)
        self.redis.start()
        running.callback(self.redis.stop)
        self.replicas = [self._server(number, server) for number in (1, 2)]
        for replica in self.replicas:
            replica.until_answers("/health")
        self.balancer = self._balancer()
        self.balancer.until_answers("/health")

    def tried(self) -> list[str]:
        """For each request to the balancer: its status, and the servers it was sent to."""
        return (self._folder / "nginx" / "access.log").read_text().splitlines()

    def prometheus(self) -> Program:
        folder = self._folder / "prometheus"
        folder.mkdir()
        for name in ("prometheus.yml", "alerts.yml"):
            (folder / name).write_bytes((DEPLOY / "prometheus" / name).read_bytes())
        # Nobody waits 15 seconds for a test.
        faster = re.sub(r"(\w+_(interval|timeout)): \d+s", r"\1: 1s", (folder / "prometheus.yml").read_text())
        (folder / "prometheus.yml").write_text(faster)
        (folder / "api_key").write_text(API_KEY)
        (folder / "targets.yml").write_text(
            json.dumps([{"targets": [f"127.0.0.1:{replica.port}" for replica in self.replicas]}])
        )
        port = free_port()
        program = self._start(
            folder,
            port,
            require("prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        program.until_answers("/-/ready")
        return program

    def _server(self, number: int, command: tuple[str, ...]) -> Program:
        folder = self._folder / f"replica-{number}"
        folder.mkdir()
        keys = {
            "cache": ["memory://?max_items=256", f"{self.redis.url}?ttl=604800"],
            "requireApiKey": True,
            "apiKey": API_KEY,
            "executor": "scripted",
            "maxConcurrency": 8,
        }
        (folder / ".anyclauderc.json").write_text(json.dumps({"backends": {"vllm-mlx": keys}}))
        port = free_port()
        return self._start(folder, port, sys.executable, "-m", *command, str(port))

    def _balancer(self) -> Program:
        folder, port = self._folder / "nginx", free_port()
        folder.mkdir()
        servers = [f"server 127.0.0.1:{replica.port} max_fails=1 fail_timeout=5s;" for replica in self.replicas]
        filled = (DEPLOY / "nginx" / "anyclaude.conf.template").read_text()
        for name, value in {"ANYCLAUDE_LISTEN": f"127.0.0.1:{port}", "ANYCLAUDE_SERVERS": " ".join(servers)}.items():
            filled = filled.replace(f"${{{name}}}", value)
        (folder / "anyclaude.conf").write_text(filled)
        main = NGINX_MAIN.format(folder=folder, user="user root;" if os.geteuid() == 0 else "")
        (folder / "nginx.conf").write_text(main)
        return self._start(folder, port, require("nginx"), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf")

    def _start(self, folder: Path, port: int, *command: str) -> Program:
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        program = Program(port, process, log)
        self._running.callback(program.stop)
        return program


@contextmanager
def running_topology(folder: Path, server: tuple[str, ...]) -> Iterator[Topology]:
    """`server` is the module that serves, and its arguments before the port."""
    require("nginx")
    with ExitStack() as running:
        yield Topology(folder, running, server)
