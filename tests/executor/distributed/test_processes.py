"""Several processes that serve one model: the same text as from one, and an end of all when one ends."""

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from operator import eq
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.tiny_model import Shape, write_tiny_model
from tests.executor.distributed.processes import ask, launched, started, streamed_text, text
from tests.patience import PATIENCE_SECONDS, until
from tests.server_process import serving

UNAVAILABLE = 69
QUESTIONS = ("What is the capital of France?", "Name one colour.", "Say hello.")
FEW = {"max_tokens": 12}
SEEDS = (2, 3, 4)
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
AS_JSON = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA}}}
LONG = "one two three four five six seven eight nine ten " * 20
ENDLESS = {"max_tokens": 4000, "logit_bias": {"2": -100}}
"""Without the token that ends an answer."""


@pytest.fixture(scope="module")
def pipeline_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a Qwen2, which mlx-lm can run as a pipeline: a Llama with biases."""
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen2"
    shutil.copytree(tiny_model, folder)
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    (folder / "config.json").write_bytes(msgspec.json.encode(config | {"model_type": "qwen2"}))
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))]:
        weights[name.replace("weight", "bias")] = np.zeros(weights[name].shape[0], weights[name].dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "mlx"})
    return folder


@pytest.mark.model
def test_three_launched_ranks_give_the_same_text_as_one_process(demo_model: Path, tmp_path: Path) -> None:
    model = write_tiny_model(demo_model, tmp_path / "model", shape=Shape(width=48, heads=3, kv_heads=3))
    with serving(tmp_path / "one", str(model)) as one:
        expected = [text(one.url, question, **FEW) for question in QUESTIONS]
    with launched(tmp_path / "three", 3, str(model)) as ranks:
        ranks.wait_until_healthy()
        assert ranks.health()["detail"].endswith("3 ranks")
        streamed = streamed_text(ranks.url, QUESTIONS[0], **FEW)
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda question: text(ranks.url, question, **FEW), QUESTIONS[1:]))
        os.kill(ranks.process_id(0), signal.SIGTERM)
        (launcher,) = ranks.processes
        assert launcher.wait(PATIENCE_SECONDS) == 0
        assert "exited with code" not in ranks.log
        assert "was killed" not in ranks.log
    assert [streamed, *together] == expected


class Answers(msgspec.Struct, frozen=True):
    greedy: list[str]
    by_seed: list[str]
    constrained: str


@pytest.fixture(scope="module")
def of_one_process(pipeline_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    with serving(tmp_path_factory.mktemp("one") / "home", str(pipeline_model)) as one:
        return Answers(
            greedy=[text(one.url, question, max_tokens=20) for question in (*QUESTIONS, LONG)],
            by_seed=[text(one.url, "draw", max_tokens=20, temperature=1.0, seed=seed) for seed in SEEDS],
            constrained=text(one.url, "answer", max_tokens=20, **AS_JSON),
        )


@pytest.mark.parametrize("parallel", ["tensor", "pipeline"])
def test_every_kind_of_request_keeps_the_ranks_in_step(
    pipeline_model: Path, of_one_process: Answers, tmp_path: Path, parallel: str
) -> None:
    with started(tmp_path / "two", 2, str(pipeline_model), "--parallel", parallel) as ranks:
        ranks.wait_until_healthy()
        with ThreadPoolExecutor(4) as pool:
            questions = pool.map(lambda question: text(ranks.url, question, max_tokens=20), (*QUESTIONS, LONG))
            drawn = pool.submit(ask, ranks.url, "draw freely", max_tokens=20, temperature=1.0, n=2)
            as_json = pool.submit(text, ranks.url, "answer", max_tokens=20, **AS_JSON)
            assert list(questions) == of_one_process.greedy
            assert len({choice["message"]["content"] for choice in drawn.result()["choices"]}) == 2
            assert as_json.result() == of_one_process.constrained
        again = [text(ranks.url, "draw", max_tokens=20, temperature=1.0, seed=seed) for seed in SEEDS]
        # Ranks add in another order, and among tokens of almost the same weight another one may then be drawn.
        assert sum(map(eq, again, of_one_process.by_seed)) >= len(SEEDS) - 1
        with pytest.raises(ZeroDivisionError):  # a client that leaves
            streamed_text(ranks.url, "go on", on_text=lambda piece: 1 // 0, **ENDLESS)
        longer = ask(ranks.url, LONG + "and so on", max_tokens=20, logprobs=True)
        assert longer["usage"]["prompt_tokens_details"]["cached_tokens"] > 100
        assert ranks.health()["status"] == "healthy"
        ranks.processes[0].send_signal(signal.SIGTERM)
        assert [process.wait(PATIENCE_SECONDS) for process in ranks.processes] == [0, 0]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_follower_that_dies_is_said_and_who_waits_is_told(tiny_model: Path, tmp_path: Path, busy: bool) -> None:
    with started(tmp_path / "two", 2, str(tiny_model)) as ranks:
        ranks.wait_until_healthy()
        if busy:
            with pytest.raises(AssertionError, match="rank 1 has ended"):
                streamed_text(ranks.url, "go on", on_text=lambda piece: ranks.processes[1].kill(), **ENDLESS)
        else:
            ranks.processes[1].kill()
        health = until(lambda: found if (found := ranks.health())["status"] == "unhealthy" else None, "ill health")
        assert "rank 1 has ended" in health["detail"]
        assert "rank 1 has ended" in ranks.log
        ranks.processes[0].send_signal(signal.SIGTERM)
        assert ranks.processes[0].wait(PATIENCE_SECONDS) == UNAVAILABLE


def test_a_follower_ends_when_rank_0_dies(tiny_model: Path, tmp_path: Path) -> None:
    with started(tmp_path / "two", 2, str(tiny_model)) as ranks:
        ranks.wait_until_healthy()
        ranks.processes[0].kill()
        assert ranks.processes[1].wait(PATIENCE_SECONDS) == UNAVAILABLE
        assert "has ended without a reason" in ranks.log


def test_a_signal_to_all_is_left_to_rank_0(tiny_model: Path, tmp_path: Path) -> None:
    """As Ctrl-C in a terminal, or a service manager that stops its group."""
    with started(tmp_path / "two", 2, str(tiny_model)) as ranks:
        ranks.wait_until_healthy()
        for process in reversed(ranks.processes):
            process.send_signal(signal.SIGINT)
        assert [process.wait(PATIENCE_SECONDS) for process in ranks.processes] == [0, 0]


def test_heads_that_do_not_divide_are_said(tiny_model: Path, tmp_path: Path) -> None:
    with started(tmp_path / "three", 3, str(tiny_model)) as ranks:
        until(lambda: "cannot be divided among 3 ranks" in ranks.log, "the reason")
        assert [process.wait(PATIENCE_SECONDS) for process in ranks.processes[1:]] == [UNAVAILABLE, UNAVAILABLE]
        assert "4 heads and 2 key-value heads of a model of the type llama" in ranks.log
        assert "Start 2 ranks, or try --parallel pipeline" in ranks.log
