"""Two servers over one Redis behind one nginx: what a client of the whole sees, also when a server dies under load."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deployment.slow_server import WORD_SECONDS
from tests.deployment.topology import AUTHORIZED, DEPLOY, Program, Topology, running_topology
from tests.patience import PATIENCE_SECONDS, until

CHAT = "/v1/chat/completions"
CLIENTS = 16
ANYCLAUDE_SERVE = ("service.cli", "serve", "--port")
LONG = 200
LONG_SECONDS = LONG * WORD_SECONDS
"""The least time that a long answer takes."""
PATIENCE = httpx.Timeout(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """For tests that kill nothing."""
    with running_topology(tmp_path_factory.mktemp("topology"), ANYCLAUDE_SERVE) as topology:
        yield topology


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    with running_topology(tmp_path, ("tests.deployment.slow_server",)) as topology:
        yield topology


def body(text: str, *, stream: bool = False) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "stream": stream}


def session(name: str) -> dict[str, str]:
    return {**AUTHORIZED, "x-claude-code-session-id": name}


def test_what_one_server_generated_is_a_hit_on_the_other(shared: Topology) -> None:
    outcomes = []
    with httpx.Client(base_url=shared.balancer.url, trust_env=False, timeout=PATIENCE) as client:
        for number in range(20):
            answer = client.post(CHAT, json=body("the same for all"), headers=session(f"session {number}"))
            assert answer.json()["choices"][0]["message"]["content"] == "the same for all"
            outcomes.append(answer.headers["cache-status"])
    assert outcomes[0].removesuffix("; stored") == "anyclaude; fwd=uri-miss"
    # Collapsed is one that came while the first was still being written to Redis.
    assert set(outcomes[1:]) <= {"anyclaude; hit", "anyclaude; fwd=uri-miss; collapsed"}
    hits = [replica.get("/health")["cache"]["hits"] for replica in shared.replicas]
    assert min(hits) > 0, "both servers answered some of them"


def test_a_session_stays_with_one_server(shared: Topology) -> None:
    with httpx.Client(base_url=shared.balancer.url, trust_env=False, timeout=PATIENCE) as client:
        before = len(shared.tried())
        for number in range(6):
            client.post(CHAT, json=body(f"turn {number}"), headers=session("mine")).raise_for_status()
        tried = until(lambda: lines if len(lines := shared.tried()[before:]) >= 6 else None, "the log")
    assert len(set(tried)) == 1


def test_a_stream_is_passed_on_as_it_comes(topology: Topology) -> None:
    asked = body("word " * LONG, stream=True)
    with (
        httpx.Client(base_url=topology.balancer.url, trust_env=False, timeout=PATIENCE) as client,
        client.stream("POST", CHAT, json=asked, headers=AUTHORIZED) as answer,
    ):
        times = [time.monotonic() for _ in answer.iter_raw()]
    assert times[-1] - times[0] > LONG_SECONDS / 4


def test_a_body_of_many_megabytes_passes(shared: Topology) -> None:
    """Past nginx's buffer, and its default limit of 1 MB."""
    asked = body("x" * 3_000_000)
    answer = httpx.post(shared.balancer.url + CHAT, json=asked, headers=AUTHORIZED, trust_env=False, timeout=PATIENCE)
    assert answer.status_code == 200


def test_errors_keep_their_shape_and_figures_are_not_public(shared: Topology) -> None:
    refused = httpx.post(shared.balancer.url + CHAT, json=body("x"), trust_env=False, timeout=PATIENCE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    metrics = httpx.get(f"{shared.balancer.url}/metrics", headers=AUTHORIZED, trust_env=False, timeout=PATIENCE)
    assert metrics.status_code == 404


async def test_a_server_killed_under_load_fails_no_request(topology: Topology) -> None:
    """None of these has begun to stream: each is answered whole."""
    done = asyncio.Event()

    async def client(number: int, http: httpx.AsyncClient) -> int:
        count = 0
        while not done.is_set():
            text = f"{number} {count} " + "word " * LONG
            answer = await http.post(CHAT, json=body(text), headers=session(f"{number}"))
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["message"]["content"] == text
            count += 1
        return count

    async with (
        httpx.AsyncClient(base_url=topology.balancer.url, trust_env=False, timeout=PATIENCE) as http,
        asyncio.TaskGroup() as group,
    ):
        clients = [group.create_task(client(number, http)) for number in range(CLIENTS)]
        await busy(topology)
        topology.replicas[0].kill()
        await until_served(topology, 3 * CLIENTS)
        done.set()
    assert min(task.result() for task in clients) > 0
    dead, alive = (f"127.0.0.1:{replica.port}" for replica in topology.replicas)
    assert any(line == f"200 {dead}, {alive}" for line in topology.tried()), "some were begun again on the other"


async def test_a_server_that_is_stopped_properly_fails_no_request(topology: Topology) -> None:
    async with httpx.AsyncClient(base_url=topology.balancer.url, trust_env=False, timeout=PATIENCE) as http:
        texts = [f"{number} " + "word " * LONG for number in range(3 * CLIENTS)]
        asked = [asyncio.create_task(http.post(CHAT, json=body(text), headers=AUTHORIZED)) for text in texts]
        await busy(topology)
        await asyncio.to_thread(topology.replicas[0].stop)
        answers = await asyncio.gather(*asked)
    assert [answer.status_code for answer in answers] == [200] * len(texts)


def test_with_no_server_left_the_error_has_the_shape_of_both_protocols(topology: Topology) -> None:
    for replica in topology.replicas:
        replica.kill()
    answer = httpx.post(
        topology.balancer.url + "/v1/messages", json=body("x"), headers=AUTHORIZED, trust_env=False, timeout=PATIENCE
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["message"].startswith("No server of this address answers.")


def test_every_query_of_the_dashboard_and_every_alert_finds_its_figures(shared: Topology) -> None:
    prometheus = shared.prometheus()
    with httpx.Client(base_url=shared.balancer.url, trust_env=False, timeout=PATIENCE) as client:
        for number in range(10):
            for stream in (False, True):
                # Asked twice: a miss and a hit.
                for _ in range(2):
                    asked = body(f"{number} {stream} to be counted", stream=stream)
                    client.post(CHAT, json=asked, headers=session(f"{number}")).raise_for_status()
    dashboard = json.loads((DEPLOY / "grafana/dashboards/anyclaude.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) > 15
    for query in queries:
        # Without a pause between two looks at the same counters: the rate's window covers all of them.
        asked_for = query.replace("$__rate_interval", "1m")
        found = until(lambda: prometheus.get("/api/v1/query", query=asked_for)["data"]["result"], asked_for)  # noqa: B023
        assert all(float(sample["value"][1]) >= 0 or sample["value"][1] == "NaN" for sample in found)
    until(lambda: {rule["health"] for rule in rules(prometheus)} == {"ok"}, "every alert to be evaluated")


def rules(prometheus: Program) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = prometheus.get("/api/v1/rules")["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


async def busy(topology: Topology) -> None:
    """Until the first server generates."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await asyncio.to_thread(topology.replicas[0].get, "/health"))["running"] < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_served(topology: Topology, more: int) -> None:
    """Until the balancer has answered so many more requests."""
    before = len(topology.tried())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(topology.tried()) < before + more:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
