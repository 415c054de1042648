"""`anyclaude serve` with two models, whose engines come and go."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.tiny_model import LAYERS, write_tiny_model
from service.own_python import own_environment, own_python
from tests.patience import PATIENCE_SECONDS, until
from tests.server_process import ServerProcess, serving

pytestmark = pytest.mark.model

LORA = {"rank": 2, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj", "self_attn.o_proj"]}
ADAPTER_CONFIG = {"fine_tune_type": "lora", "num_layers": LAYERS, "lora_parameters": LORA}

TRAINING = """
import json, pathlib, sys
import mlx.core as mx, mlx.nn as nn, mlx.optimizers as optim
from mlx.utils import tree_flatten
from mlx_lm.tuner.trainer import default_loss
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model
model, _ = load_model(pathlib.Path(sys.argv[1]))
folder = pathlib.Path(sys.argv[2])
config = json.loads((folder / "adapter_config.json").read_text())
model.freeze()
linear_to_lora_layers(model, config["num_layers"], config["lora_parameters"])
batch, lengths = mx.arange(100, 164)[None], mx.array([[0, 64]])
optimizer, gradient = optim.Adam(learning_rate=0.02), nn.value_and_grad(model, default_loss)
losses = []
for _ in range(20):
    (loss, _), gradients = gradient(model, batch, lengths)
    optimizer.update(model, gradients)
    mx.eval(model.parameters(), optimizer.state)
    losses.append(loss.item())
assert losses[-1] < losses[0] - 0.3, losses
mx.save_safetensors(str(folder / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
"""

THINKING_TEMPLATE = """{% for message in messages %}{{ message.content }}
{% endfor %}{% if enable_thinking %}<think>
{% endif %}"""


@contextmanager
def serving_models(folder: Path, models: dict[str, Any], **configured: Any) -> Iterator[ServerProcess]:
    file = folder / "configuration.json"
    file.write_text(json.dumps({"backends": {"vllm-mlx": {"models": models, **configured}}}))
    with serving(folder / "home", "--config", str(file)) as server:
        yield server


def train_adapter(model_folder: Path, folder: Path) -> Path:
    """Trains a LoRA adapter for the model to repeat a row of tokens."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER_CONFIG))
    subprocess.run([sys.executable, "-P", "-c", TRAINING, str(model_folder), str(folder)], check=True)
    return folder


@pytest.fixture
def other_model(demo_model: Path, tmp_path: Path) -> Path:
    return write_tiny_model(demo_model, tmp_path / "other", seed=7)


def ask(
    server: ServerProcess, model: str | None, text: str = "hello", headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "model": model, **fields}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE_SECONDS)


def cli(server: ServerProcess, *arguments: str) -> str:
    """What `anyclaude ARGUMENTS` prints."""
    command = own_python("-m", "service.cli", *arguments, "--url", f"{server.url}/v1")
    return subprocess.run(command, env=own_environment(), capture_output=True, text=True, check=True).stdout


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def cache_status(response: httpx.Response) -> str:
    return response.headers["cache-status"]


def states(server: ServerProcess) -> dict[str, bool]:
    return {model["name"]: model["model_loaded"] for model in server.health()["models"]}


def test_two_models_answer_by_their_names_and_aliases(tiny_model: Path, other_model: Path, tmp_path: Path) -> None:
    models = {"big": {"model": str(tiny_model)}, "small": {"model": str(other_model), "contextLength": 500}}
    with serving_models(tmp_path, models, aliases={"*haiku*": "small", "claude-*": "big"}) as server:
        assert states(server) == {"big": True, "small": False}
        assert server.health()["model"] == "big"
        big, small = text_of(ask(server, "big")), text_of(ask(server, "small"))
        assert big != small
        assert states(server) == {"big": True, "small": True}
        for name, right in [
            ("claude-3-5-haiku-latest", small),
            ("claude-opus-4-8", big),
            ("default", big),
            (None, big),
        ]:
            again = ask(server, name)
            assert (text_of(again), cache_status(again)) == (right, "anyclaude; hit")
        listed = httpx.get(f"{server.url}/v1/models", timeout=PATIENCE_SECONDS).json()["data"]
        assert [(model["id"], model["loaded"]) for model in listed] == [("big", True), ("small", True)]
        assert listed[1]["context_length"] == 500
        capabilities = listed[1]["capabilities"]
        assert {name: capabilities[name]["supported"] for name in ("tools", "json_schema", "thinking")} == {
            "tools": True,
            "json_schema": True,
            "thinking": False,
        }
        assert httpx.get(f"{server.url}/v1/models/claude-haiku-9", timeout=PATIENCE_SECONDS).json()["id"] == "small"
        with ThreadPoolExecutor(2) as pool:
            alone = [text_of(ask(server, name, "tell", max_tokens=100)) for name in ("big", "small")]
            headers = {"cache-control": "no-store"}
            asked = [pool.submit(ask, server, name, "tell", headers, max_tokens=100) for name in ("big", "small")]
            assert [text_of(each.result()) for each in asked] == alone
        refused = ask(server, "gpt-5")
        assert refused.status_code == 404
        assert "Served: 'big', 'small'" in refused.json()["error"]["message"]
        too_long = ask(server, "small", "word " * 600)
        assert too_long.json()["error"]["code"] == "context_length_exceeded"


def test_a_model_is_unloaded_and_loaded_by_hand_and_by_requests(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    models = {"big": {"model": str(tiny_model)}, "small": {"model": str(other_model), "pin": True}}
    with serving_models(tmp_path, models) as server:
        until(lambda: states(server) == {"big": True, "small": True}, "the pinned model")
        first = text_of(ask(server, "small"))
        unloaded = httpx.post(f"{server.url}/v1/models/small/unload", timeout=PATIENCE_SECONDS)
        assert (unloaded.status_code, unloaded.json()["loaded"]) == (200, False)
        hit = ask(server, "small")
        assert (text_of(hit), cache_status(hit)) == (first, "anyclaude; hit")
        assert states(server)["small"] is False
        assert len(text_of(ask(server, "small", "something else"))) > 0
        assert states(server)["small"] is True
        assert "is unloaded" in cli(server, "models", "unload", "small")
        listed = json.loads(cli(server, "models", "list", "--json"))
        assert listed["served"] == {"big": "loaded", "small": "not loaded"}
        assert "is loaded" in cli(server, "models", "load", "small")
        loaded = httpx.post(f"{server.url}/v1/models/small/load", timeout=PATIENCE_SECONDS)
        assert (loaded.status_code, loaded.json()["loaded"]) == (200, True)
        assert httpx.post(f"{server.url}/v1/models/none/load", timeout=PATIENCE_SECONDS).status_code == 404


def test_idle_models_give_their_memory_back(tiny_model: Path, tmp_path: Path) -> None:
    with serving_models(tmp_path, {}, model=str(tiny_model), idleUnloadSeconds=1) as server:
        right = text_of(ask(server, None, "one"))
        until(lambda: not server.health()["model_loaded"], "the model to be unloaded")
        until(lambda: not psutil.Process(server.pid).children(), "its engine to end")
        health = server.health()
        assert (health["status"], "next request loads it" in health["detail"]) == ("healthy", True)
        again = ask(server, None, "one", seed=3)
        assert text_of(again) == right


def test_a_model_that_cannot_be_loaded_leaves_the_others_alone(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(other_model, tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "unheard_of"}))
    models = {"big": {"model": str(tiny_model)}, "small": {"model": str(broken)}}
    with serving_models(tmp_path, models) as server:
        refused = ask(server, "small")
        assert refused.status_code == 503
        assert "small could not be loaded" in refused.json()["error"]["message"]
        assert len(text_of(ask(server, "big"))) > 0
        assert server.health()["status"] == "healthy"
        assert {m["name"]: m["status"] for m in server.health()["models"]} == {"big": "healthy", "small": "unhealthy"}


def test_an_adapter_changes_the_answer_and_the_cache_key(tiny_model: Path, tmp_path: Path) -> None:
    adapter = train_adapter(tiny_model, tmp_path / "adapter")
    models = {"plain": {"model": str(tiny_model)}, "tuned": {"model": str(tiny_model), "adapter": str(adapter)}}
    with serving_models(tmp_path, models) as server:
        plain, tuned = ask(server, "plain", max_tokens=16), ask(server, "tuned", max_tokens=16)
        assert text_of(plain) != text_of(tuned)
        assert "miss" in cache_status(tuned)
        assert cache_status(ask(server, "tuned", max_tokens=16)) == "anyclaude; hit"
        without_effect = ADAPTER_CONFIG | {"lora_parameters": {**LORA, "scale": 0.0}}
        (adapter / "adapter_config.json").write_text(json.dumps(without_effect))
        for deed in ("unload", "load"):
            assert httpx.post(f"{server.url}/v1/models/tuned/{deed}", timeout=PATIENCE_SECONDS).status_code == 200
        changed = ask(server, "tuned", max_tokens=16)
        assert (text_of(changed), "miss" in cache_status(changed)) == (text_of(plain), True)


def test_sampling_thinking_and_guesses_are_each_models_own(tiny_model: Path, tmp_path: Path) -> None:
    thinking = shutil.copytree(tiny_model, tmp_path / "thinking")
    (thinking / "chat_template.jinja").write_text(THINKING_TEMPLATE)
    models = {
        "pensive": {"model": str(thinking), "thinking": "on", "draftModel": str(tiny_model)},
        "cold": {"model": str(thinking)},
        "warm": {"model": str(thinking), "sampling": {"temperature": 2, "topK": 50}},
    }
    with serving_models(tmp_path, models, cachePolicy="off", promptLookup=False) as server:
        cold = {text_of(ask(server, "cold")) for _ in range(3)}
        warm = {text_of(ask(server, "warm")) for _ in range(3)}
        assert len(cold) == 1
        assert len(warm) > 1
        lengths = {name: ask(server, name).json()["usage"]["prompt_tokens"] for name in models}
        assert lengths["pensive"] > lengths["cold"] == lengths["warm"]
        assert httpx.get(f"{server.url}/stats", timeout=PATIENCE_SECONDS).json()["engine"]["drafts"]["drafted"] > 0
