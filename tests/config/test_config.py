"""What is in force for which files, variables and flags, who is said to have set it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.config import ConfigError, Origins, load_configuration, server_address
from service.settings import ModelSettings, SamplingDefaults, Settings


class Computer:
    """Two folders that may hold a configuration file: the working folder and the user's home."""

    def __init__(self, folder: Path) -> None:
        self.cwd, self.home = folder / "work", folder / "home"
        self.cwd.mkdir()
        self.home.mkdir()

    def write(self, document: Any, *, at_home: bool = False) -> Path:
        path = (self.home if at_home else self.cwd) / ".anyclauderc.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def load(self, environ: dict[str, str] | None = None, **flags: object) -> tuple[Settings, Origins]:
        """With every value approved."""
        found = load_configuration(flags, environ or {}, self.cwd, self.home, lambda _: True)
        return found.settings, found.origins


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


def backend(**keys: object) -> dict[str, Any]:
    return {"backends": {"vllm-mlx": keys}}


def test_without_configuration_the_defaults_are_in_force(computer: Computer) -> None:
    settings, origins = computer.load()
    expected = Settings(home=computer.home / ".anyclaude", base_url="http://127.0.0.1:8081/v1")
    assert settings == expected
    assert {origin.kind for origin in origins.values()} == {"default"}
    assert {name.split(".")[0] for name in origins} == set(Settings.__struct_fields__)


FILE_VALUES = [
    ({"debug": {"level": 2}}, "debug_level", 2),
    ({"debug": {"logFormat": "json"}}, "log_format", "json"),
    ({"debug": {"traces": "1MB"}}, "trace_max_bytes", 1_000_000),
    (backend(model="org/name"), "model", "org/name"),
    (backend(port=0), "port", 0),
    (
        backend(models={"small": {"model": "org/x", "pin": True, "contextLength": 9, "sampling": {"topP": 0.5}}}),
        "models",
        {"small": ModelSettings(model="org/x", pin=True, context_length=9, sampling=SamplingDefaults(top_p=0.5))},
    ),
    (backend(aliases={"*haiku*": "default"}), "aliases", {"*haiku*": "default"}),
    (backend(idleUnloadSeconds=60), "idle_unload_seconds", 60),
    (backend(requireApiKey=True), "require_api_key", True),
    (backend(allowedHosts=["box.local"]), "allowed_hosts", ("box.local",)),
    (backend(cache=["memory://", "disk:///c"]), "cache", ("memory://", "disk:///c")),
    (backend(allowedHosts=[]), "allowed_hosts", ()),
    (backend(cachePolicy="deterministic"), "cache_policy", "deterministic"),
    (backend(prefixCache={"memory": "2GiB"}), "prefix_memory_bytes", 2 * 1024**3),
    (backend(prefixCache={"disk": 0}), "prefix_disk_bytes", 0),
    (backend(prefixCache={"memory": None}), "prefix_memory_bytes", None),
    (backend(maxBody="1.5 KiB"), "max_body_bytes", 1536),
    (backend(queueTimeoutSeconds=3), "queue_timeout_seconds", 3.0),
    (backend(dequantizeOnCpu=False), "dequantize_on_cpu", False),
    (backend(promptLookup=False), "prompt_lookup", False),
    (backend(draftModel="org/small"), "draft_model", "org/small"),
]


@pytest.mark.parametrize(("document", "field", "value"), FILE_VALUES)
def test_a_file_sets_a_field(computer: Computer, document: Any, field: str, value: object) -> None:
    path = computer.write(document)
    settings, origins = computer.load()
    assert getattr(settings, field) == value
    assert origins[field].kind == "file"
    assert origins[field].where == str(path)


def test_sampling_defaults_are_nested(computer: Computer) -> None:
    path = computer.write(backend(sampling={"topP": 0.9}))
    settings, origins = computer.load()
    assert settings.sampling.top_p == 0.9
    assert settings.sampling.temperature is None
    assert str(origins["sampling.top_p"]) == f"{path} backends.vllm-mlx.sampling.topP"


ENVIRONMENT = [
    ("VLLM_MLX_MODEL", "demo", "model", "demo"),
    ("ANYCLAUDE_DEBUG", "2", "debug_level", 2),
    ("PROXY_ONLY", "true", "proxy_only", True),
    ("PROXY_ONLY", "0", "proxy_only", False),
    ("ANYCLAUDE_HOME", "/var/lib/anyclaude", "home", Path("/var/lib/anyclaude")),
    ("VLLM_MLX_URL", "http://localhost:9000/v1", "port", 9000),
    ("VLLM_MLX_URL", "http://[::1]:9000", "host", "::1"),
    ("VLLM_MLX_URL", "http://gpu.example:9000/v1", "port", 8081),
]


@pytest.mark.parametrize(("variable", "text", "field", "value"), ENVIRONMENT)
def test_the_environment_sets_a_field(computer: Computer, variable: str, text: str, field: str, value: object) -> None:
    assert getattr(computer.load({variable: text})[0], field) == value


def test_an_empty_variable_counts_as_unset(computer: Computer) -> None:
    computer.write(backend(model="from-file"))
    settings, origins = computer.load({"VLLM_MLX_MODEL": " "})
    assert settings.model == "from-file"
    assert origins["model"].kind == "file"


@pytest.mark.parametrize("name", ["current-model", "default", "default_model"])
def test_a_name_for_the_served_model_names_no_model(computer: Computer, name: str) -> None:
    """The quick start exports VLLM_MLX_MODEL=current-model."""
    computer.write(backend(model="from-file"))
    assert computer.load({"VLLM_MLX_MODEL": name})[0].model == "from-file"
    computer.write(backend(model=name))
    assert computer.load({"VLLM_MLX_MODEL": name})[0].model is None


def test_the_stronger_source_wins_key_by_key(computer: Computer) -> None:
    computer.write(backend(model="home", maxQueue=1, maxConcurrency=1, port=1001), at_home=True)
    computer.write(backend(model="work", maxQueue=2, maxConcurrency=2))
    settings, origins = computer.load({"VLLM_MLX_MODEL": "environment"}, max_queue=3)
    assert (settings.model, settings.max_queue, settings.max_concurrency, settings.port) == ("environment", 3, 2, 1001)
    assert [str(origins[field]) for field in ("model", "max_queue")] == ["VLLM_MLX_MODEL", "--max-queue"]
    assert origins["max_concurrency"].where == str(computer.cwd / ".anyclauderc.json")
    assert origins["port"].where == str(computer.home / ".anyclauderc.json")


def test_a_file_that_is_named_is_read_instead_of_the_others(computer: Computer, tmp_path: Path) -> None:
    computer.write(backend(maxQueue=2))
    named = tmp_path / "mine.json"
    named.write_text(json.dumps(backend(maxConcurrency=5)))
    settings, _ = computer.load(config=str(named))
    assert (settings.max_concurrency, settings.max_queue) == (5, 64)


ADDRESSES: list[tuple[Any, dict[str, str], dict[str, object], tuple[str, int, str]]] = [
    (backend(port=9), {}, {}, ("127.0.0.1", 9, "http://127.0.0.1:9/v1")),
    (backend(baseUrl="http://localhost:9/v1"), {}, {}, ("127.0.0.1", 9, "http://localhost:9/v1")),
    (backend(baseUrl="http://localhost:9/v1", port=9), {}, {}, ("127.0.0.1", 9, "http://localhost:9/v1")),
    (backend(baseUrl="http://localhost:9/v1"), {}, {"port": 7}, ("127.0.0.1", 7, "http://127.0.0.1:7/v1")),
    (backend(port=9), {"VLLM_MLX_URL": "http://localhost:5/v1"}, {}, ("127.0.0.1", 5, "http://localhost:5/v1")),
    (backend(baseUrl="http://far:9/v1"), {}, {"port": 7}, ("127.0.0.1", 7, "http://far:9/v1")),
    (
        backend(host="0.0.0.0", requireApiKey=True, apiKey="a secret"),
        {"VLLM_MLX_URL": "http://localhost:5/v1"},
        {},
        ("0.0.0.0", 5, "http://localhost:5/v1"),
    ),
    (
        backend(host="::", requireApiKey=True, apiKey="a secret"),
        {},
        {},
        ("::", 8081, "http://[::1]:8081/v1"),
    ),
]


@pytest.mark.parametrize(("document", "environ", "flags", "expected"), ADDRESSES)
def test_a_local_url_and_host_with_port_say_the_same_thing(
    computer: Computer,
    document: Any,
    environ: dict[str, str],
    flags: dict[str, object],
    expected: tuple[str, int, str],
) -> None:
    computer.write(document)
    settings, _ = computer.load(environ, **flags)
    assert (settings.host, settings.port, settings.base_url) == expected


@pytest.mark.parametrize(
    ("url", "root", "local"),
    [
        ("http://localhost:8081/v1", "http://localhost:8081", True),
        ("http://127.0.0.2:8081/v1/", "http://127.0.0.2:8081", True),
        ("http://[::1]:8081", "http://[::1]:8081", True),
        ("https://localhost/v1", "https://localhost", False),
        ("http://gpu.example/llm/v1", "http://gpu.example/llm", False),
        ("http://192.168.1.5:8081/v1", "http://192.168.1.5:8081", False),
    ],
)
def test_the_address_of_the_server(computer: Computer, url: str, root: str, local: bool) -> None:
    address = server_address(computer.load({"VLLM_MLX_URL": url})[0])
    assert (address.root, address.local) == (root, local)


def test_paths_of_models_are_relative_to_their_file(computer: Computer) -> None:
    models = {"a": {"model": "./a", "adapter": "~/b", "draftModel": "../c"}}
    computer.write(backend(models=models, aliases={"x": "a", "y": "default"}), at_home=True)
    (model,) = computer.load()[0].models.values()
    home = computer.home
    assert (model.model, model.adapter, model.draft_model) == (str(home / "a"), str(home / "b"), str(home.parent / "c"))


def test_an_alias_leads_to_a_model_that_is_there(computer: Computer) -> None:
    computer.write(backend(models={"a": {"model": "x"}}, aliases={"*": "b"}), at_home=True)
    with pytest.raises(ConfigError, match=r'expected "\*" to lead to a name in models \("a", "default"\), found "b"'):
        computer.load()


def test_paths_mean_the_same_from_everywhere(computer: Computer) -> None:
    computer.write({"home": "~/state", **backend(model="./models/mine", warm=["./a.json", "/b.json"])}, at_home=True)
    settings, _ = computer.load()
    assert settings.model == str(computer.home / "models/mine")
    assert settings.warm == (str(computer.home / "a.json"), "/b.json")
    assert settings.home == computer.home / "state"


WRONG_FILES = [
    ("{", "", "expected JSON"),
    ("[" * 100_000, "", "expected JSON"),
    ('{\n "backend" 1}', "", "expected ':' (line 2, column 12)"),
    ("[1]", "", "expected an object, found [1]"),
    ({"backends": 3}, "backends", "expected an object, found 3"),
    ({"backend": "ollama"}, "backend", 'expected "vllm-mlx", found "ollama"'),
    ({"backends": {"vllm": {}}}, "backends", 'unknown key "vllm". Did you mean "vllm-mlx"?'),
    ({"debug": {"level": 3}}, "debug.level", "expected 0 or 1 or 2, found 3"),
    (backend(max_queue=1), "backends.vllm-mlx", 'unknown key "max_queue". Did you mean "maxQueue"?'),
    (backend(models=["a"]), "backends.vllm-mlx.models", 'expected an object, found ["a"]'),
    (
        backend(models={"small": {"model": "x", "pinned": True}}),
        "backends.vllm-mlx.models",
        'expected "small" to be right (object contains unknown field `pinned`), found {',
    ),
    (backend(models={"small": {}}), "backends.vllm-mlx.models", "missing required field `model`"),
    (
        backend(models={"small": {"model": "x", "contextLength": 0}}),
        "backends.vllm-mlx.models",
        "`int` >= 1 - at `$.contextLength`",
    ),
    (backend(aliases={"*": 3}), "backends.vllm-mlx.aliases", 'expected "*" to be right'),
    (backend(zzz=1), "backends.vllm-mlx", 'unknown key "zzz". Known here: adapter, aliases, allowedHosts, '),
    (backend(port="8081"), "backends.vllm-mlx.port", 'expected a whole number from 0 to 65535, found "8081"'),
    (backend(port=65536), "backends.vllm-mlx.port", "found 65536"),
    (backend(maxQueue=True), "backends.vllm-mlx.maxQueue", "expected a whole number of at least 0, found true"),
    (backend(stallSeconds=0), "backends.vllm-mlx.stallSeconds", "expected a number above 0, found 0"),
    (
        backend(cache="memory://"),
        "backends.vllm-mlx.cache",
        'expected a list of texts that is not empty, such as ["memory://"], found "memory://"',
    ),
    (backend(model=""), "backends.vllm-mlx.model", 'expected a text that is not empty or null, found ""'),
    (backend(cache=[]), "backends.vllm-mlx.cache", "expected a list of texts that is not empty, found []"),
    (backend(prefixCache={"disk": "2 gigs"}), "backends.vllm-mlx.prefixCache.disk", 'like "2GiB", found "2 gigs"'),
    (backend(prefixCache={"disk": -1}), "backends.vllm-mlx.prefixCache.disk", 'like "2GiB", found -1'),
    (backend(sampling={"topP": 0}), "backends.vllm-mlx.sampling.topP", "expected a number above 0 up to 1 or null"),
    (backend(baseUrl="localhost:8081"), "backends.vllm-mlx.baseUrl", 'found "localhost:8081"'),
    (backend(baseUrl="http://me:pw@far/v1"), "backends.vllm-mlx.baseUrl", "without a name and password"),
    (
        backend(baseUrl="http://localhost:1/v1", port=2),
        "backends.vllm-mlx.baseUrl",
        "expected the port of this server, 2",
    ),
    (backend(enabled=False), "backends.vllm-mlx.enabled", "expected true, found false"),
    (backend(host="0.0.0.0"), "backends.vllm-mlx.host", "Set requireApiKey to true"),
    (backend(host="box.local", requireApiKey=True), "backends.vllm-mlx.host", "Set apiKey to a secret"),
]


WRONG_URLS = [
    (
        backend(cache=["memory://?max_items=abc"]),
        "backends.vllm-mlx.cache",
        "memory://: expected max_items to be a whole",
    ),
    (backend(cache=["memory://", "foo://"]), "backends.vllm-mlx.cache", "expected a cache URL that begins with one of"),
]


@pytest.mark.parametrize(("document", "key", "problem"), WRONG_FILES + WRONG_URLS)
def test_a_wrong_file_is_named_with_its_key(computer: Computer, document: Any, key: str, problem: str) -> None:
    path = computer.write(document)
    with pytest.raises(ConfigError) as caught:
        computer.load()
    assert caught.value.where == str(path)
    assert caught.value.key == key
    assert problem in caught.value.problem
    assert str(caught.value).startswith(str(path))


def test_a_folder_in_the_files_place_is_not_passed_over(computer: Computer) -> None:
    (computer.cwd / ".anyclauderc.json").mkdir()
    with pytest.raises(ConfigError, match=r"anyclauderc\.json: cannot be read: Is a directory"):
        computer.load()


def test_a_file_is_read_only_if_it_is_a_regular_file(computer: Computer) -> None:
    """`git clone` keeps symbolic links."""
    file = computer.cwd / ".anyclauderc.json"
    file.symlink_to("/dev/null")
    with pytest.raises(ConfigError, match=r"anyclauderc\.json: .*expected a regular file, found a device: replace it"):
        computer.load()
    file.unlink()
    (computer.cwd / "linked.json").write_text(json.dumps(backend(maxQueue=2)))
    file.symlink_to("linked.json")
    assert computer.load()[0].max_queue == 2


def test_a_file_has_at_most_1_mib(computer: Computer) -> None:
    document = json.dumps(backend(maxQueue=2))
    computer.write(document.ljust(1024**2))
    assert computer.load()[0].max_queue == 2
    computer.write(document.ljust(1024**2 + 1))
    with pytest.raises(ConfigError, match=r"anyclauderc\.json: expected at most 1 MiB of configuration, found more"):
        computer.load()


def test_a_byte_order_mark_is_no_mistake(computer: Computer) -> None:
    computer.write("\ufeff" + json.dumps(backend(maxQueue=2)))
    assert computer.load()[0].max_queue == 2


def test_an_error_never_shows_the_api_key(computer: Computer) -> None:
    computer.write(backend(apiKey=["s3cret"]))
    with pytest.raises(ConfigError, match="apiKey: expected a text that is not empty, found a value of type list") as e:
        computer.load()
    assert "s3cret" not in str(e.value)


WRONG_ELSEWHERE: list[tuple[dict[str, str], dict[str, object], str]] = [
    ({"ANYCLAUDE_DEBUG": "yes"}, {}, 'ANYCLAUDE_DEBUG: expected 0 or 1 or 2, found "yes"'),
    ({"PROXY_ONLY": "maybe"}, {}, 'PROXY_ONLY: expected true or false, found "maybe"'),
    ({"VLLM_MLX_URL": "ftp://x"}, {}, 'VLLM_MLX_URL: expected a URL like "http://localhost:8081/v1", found "ftp://x"'),
    ({"VLLM_MLX_URL": "http://x:99999/v1"}, {}, "Port out of range"),
    ({}, {"port": 70000}, "--port: expected a whole number from 0 to 65535, found 70000"),
    ({}, {"cache_policy": "some"}, '--cache-policy: expected "all" or "deterministic" or "off", found "some"'),
    ({}, {"cache": ("foo://",)}, "--cache: expected a cache URL that begins with one of"),
    ({}, {"cache": ("disk:///tmp/a%00b",)}, "--cache: expected a cache URL without the character NUL"),
    ({}, {"debug_level": 7}, "--debug: expected 0 or 1 or 2, found 7"),
    ({}, {"host": "0.0.0.0"}, '--host: expected a loopback address, found "0.0.0.0"'),
    ({}, {"config": "/does/not/exist.json"}, "/does/not/exist.json: cannot be read: No such file"),
]


@pytest.mark.parametrize(("environ", "flags", "message"), WRONG_ELSEWHERE)
def test_a_wrong_variable_or_flag_is_named(
    computer: Computer, environ: dict[str, str], flags: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        computer.load(environ, **flags)
    assert message in str(caught.value)


NO_NUL = 'expected a text without the character NUL, found "./\\u0000"'
WITH_NUL: list[tuple[dict[str, Any], str, str]] = [
    *(
        (backend(**{name: "./\0"}), f"backends.vllm-mlx.{name}", NO_NUL)
        for name in ("model", "adapter", "draftModel", "record", "replay", "host", "baseUrl", "webSearchUrl")
    ),
    *(
        (backend(**{name: ["a", "./\0"]}), f"backends.vllm-mlx.{name}", NO_NUL)
        for name in ("warm", "allowedHosts", "allowedOrigins", "cache")
    ),
    (backend(models={"a": {"model": "./\0"}}), "backends.vllm-mlx.models", NO_NUL),
    (backend(models={"a": {"model": "x", "adapter": "./\0"}}), "backends.vllm-mlx.models", NO_NUL),
    (backend(models={"./\0": {"model": "x"}}), "backends.vllm-mlx.models", NO_NUL),
    (backend(aliases={"./\0": "default"}), "backends.vllm-mlx.aliases", NO_NUL),
    (backend(aliases={"x": "./\0"}), "backends.vllm-mlx.aliases", NO_NUL),
    ({"home": "./\0"}, "home", NO_NUL),
    (backend(cache=["disk:///tmp/a%00b"]), "backends.vllm-mlx.cache", "expected a cache URL without the character NUL"),
]


@pytest.mark.parametrize(("document", "key", "problem"), WITH_NUL)
def test_no_text_of_a_file_has_a_nul(computer: Computer, document: Any, key: str, problem: str) -> None:
    computer.write(document)
    with pytest.raises(ConfigError) as caught:
        computer.load()
    assert (caught.value.key, caught.value.problem[: len(problem)]) == (key, problem)


@pytest.mark.parametrize(
    "document", [{"\u001b[2J": 1}, backend(baseUrl="\u001b[2J"), backend(aliases={"x": "\u001b[2J\u202e"})]
)
def test_an_error_does_not_steer_the_screen(computer: Computer, document: Any) -> None:
    computer.write(document)
    with pytest.raises(ConfigError, match=r"\\x1b\[2J") as caught:
        computer.load()
    assert str(caught.value).isprintable()


def test_a_nul_does_not_show_the_api_key(computer: Computer) -> None:
    computer.write(backend(apiKey="s3cret\0"))
    with pytest.raises(ConfigError, match="without the character NUL, found a value of type str"):
        computer.load()


EXAMPLE = (Path(__file__).parents[2] / ".anyclauderc.example.json").read_text()


def test_one_key_of_the_example_can_be_changed_alone(computer: Computer) -> None:
    document = json.loads(EXAMPLE)
    document["backends"]["vllm-mlx"]["port"] = 9000
    computer.write(document)
    assert computer.load()[0].base_url == "http://127.0.0.1:9000/v1"


def test_every_field_of_settings_can_be_set_in_the_file(computer: Computer) -> None:
    """The example of the project sets all of them, so a field without a key, or a key without an example, shows."""
    computer.write(EXAMPLE)
    settings, origins = computer.load()
    assert {field for field, origin in origins.items() if origin.kind != "file"} == {"home"}
    differing = {"home", "model", "base_url", "prefix_memory_bytes"}
    default = msgspec.structs.asdict(Settings(home=settings.home))
    assert {k for k, v in msgspec.structs.asdict(settings).items() if default[k] != v} == differing - {"home"}
