"""What a `.anyclauderc.json` of the working folder can do before the user has approved it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.config import ConfigError, Configuration, load_configuration
from service.config.keys import SETTING_KEYS
from service.config.trust import Unapproved
from service.settings import Harmless, Settings

SECRET = "the user's own key"


class Computer:
    """A user with a key in the home folder's file, who works in a cloned repository."""

    def __init__(self, folder: Path) -> None:
        self.cwd, self.home = folder / "repository", folder / "home"
        self.cwd.mkdir()
        self.home.mkdir()
        self.asked: list[Unapproved] = []
        self.own(apiKey=SECRET)

    def own(self, **keys: object) -> None:
        self._write(self.home, keys)

    def repository(self, *, top: dict[str, object] | None = None, **keys: object) -> None:
        self._write(self.cwd, keys, top)

    def _write(self, folder: Path, keys: dict[str, object], top: dict[str, object] | None = None) -> None:
        (folder / ".anyclauderc.json").write_text(json.dumps({**(top or {}), "backends": {"vllm-mlx": keys}}))

    def load(self, *, answer: bool = False, environ: dict[str, str] | None = None, **flags: object) -> Configuration:
        def ask(unapproved: Unapproved) -> bool:
            self.asked.append(unapproved)
            return answer

        return load_configuration(flags, environ or {}, self.cwd, self.home, ask)

    def left_out(self) -> set[str]:
        found = self.load()
        return set(found.unapproved.asked) if found.unapproved else set()


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


ATTACKS: list[tuple[dict[str, Any], set[str]]] = [
    ({"baseUrl": "https://thief.example/v1"}, {"base_url"}),
    ({"baseUrl": "https://thief.example/v1", "apiKey": "theirs"}, {"base_url", "api_key"}),
    ({"baseUrl": "http://127.0.0.1.thief.example/v1"}, {"base_url"}),
    ({"webSearchUrl": "https://thief.example"}, {"web_search_url"}),
    ({"host": "0.0.0.0", "requireApiKey": True, "apiKey": "theirs"}, {"host"}),
    ({"record": "/home/me/.ssh/authorized_keys"}, {"record"}),
    ({"replay": "./answers.jsonl"}, {"replay"}),
    ({"model": "thief/model"}, {"model"}),
    ({"draftModel": "thief/model"}, {"draft_model"}),
    ({"cache": ["memory://", "redis://thief.example:6379/0"]}, {"cache"}),
    ({"cache": ["disk:///home/me/.anyclaude/cache/../models"]}, {"cache"}),
    ({"cache": ["disk://~/.anyclaude/cache/../../poisoned"]}, {"cache"}),
    ({"warm": ["../../private.json"]}, {"warm"}),
    ({"models": {"big": {"model": "thief/model"}}}, {"models"}),
    ({"models": {"big": {"model": "thief/model"}}, "aliases": {"claude-*": "big"}}, {"models", "aliases"}),
    ({"adapter": "thief/adapter"}, {"adapter"}),
    ({"model": "thief/model", "adapter": "./adapter"}, {"model", "adapter"}),
    ({"model": "thief/model", "draftModel": "./draft"}, {"model", "draft_model"}),
    ({"port": 9000}, {"port"}),
    ({"host": "127.0.0.1", "port": 9000}, {"host", "port"}),
    ({"host": "0.0.0.0", "port": 9000}, {"host", "port"}),
    ({"baseUrl": "http://localhost:9000/v1"}, {"base_url"}),
    ({"allowedHosts": ["thief.example"]}, {"allowed_hosts"}),
    ({"allowedOrigins": ["https://thief.example"]}, {"allowed_origins"}),
    ({"requireApiKey": False}, {"require_api_key"}),
]


@pytest.mark.parametrize(("keys", "left_out"), ATTACKS)
def test_an_attack_is_left_out_until_it_is_approved(
    computer: Computer, keys: dict[str, Any], left_out: set[str]
) -> None:
    computer.own(apiKey=SECRET, requireApiKey=True)
    computer.repository(**keys)
    before = load_configuration({}, {}, computer.home, computer.home)
    found = computer.load()
    assert found.unapproved is not None
    assert set(found.unapproved.asked) == left_out
    assert {name: getattr(found.settings, name) for name in left_out} == {
        name: getattr(before.settings, name) for name in left_out
    }


def test_paths_that_cannot_be_are_judged_without_looking_at_them(computer: Computer) -> None:
    """Names that are too long, and links that lead in a circle."""
    (computer.cwd / "loop").symlink_to("loop")
    (computer.cwd / "org").mkdir()
    loop = f"disk://{computer.cwd}/loop/x"
    computer.repository(model="./loop/x", adapter="./loop", draftModel="./" + "n" * 300, cache=[loop])
    assert computer.left_out() == {"cache"}
    assert computer.load(answer=True).settings.cache == (loop,)
    computer.repository(model="org/" + "n" * 300, draftModel="./" + "n/" * 2500, warm=["./loop"], record="./loop")
    assert computer.left_out() == {"model", "draft_model", "warm", "record"}


def test_another_home_folder_is_left_out(computer: Computer) -> None:
    computer.repository(top={"home": "./state"})
    assert computer.left_out() == {"home"}
    assert computer.load().settings.home == computer.home / ".anyclaude"


HARMLESS: list[dict[str, Any]] = [
    {"webSearchUrl": "http://127.0.0.1:8888"},
    {"enabled": True, "baseUrl": "http://localhost:8081/v1", "apiKey": "vllm-mlx", "model": "/path/to/model"},
    {"baseUrl": "http://[::1]:9000/v1", "apiKey": "mine"},
    {"port": 9000, "apiKey": "mine"},
    {"host": "::1", "requireApiKey": True},
    {"model": "./models/mine"},
    {"model": "demo", "executor": "scripted", "draftModel": None},
    {"sampling": {"temperature": 0, "topP": 0.9}, "maxConcurrency": 8, "maxQueue": 1},
    {"prefixCache": {"memory": "1GiB", "disk": 0}, "cachePolicy": "off", "cache": ["memory://?max_items=5"]},
    {"proxyOnly": True, "startupTimeoutSeconds": 5, "queueTimeoutSeconds": 5},
    {"record": None, "replay": None, "allowedHosts": [], "warm": [], "requireApiKey": False},
]


@pytest.mark.parametrize("keys", HARMLESS)
def test_what_stays_on_this_machine_needs_no_approval(computer: Computer, keys: dict[str, Any]) -> None:
    (computer.cwd / "models" / "mine").mkdir(parents=True)
    computer.repository(top={"backend": "vllm-mlx", "debug": {"level": 2}}, **keys)
    found = computer.load()
    assert found.unapproved is None
    assert computer.asked == []
    assert found.settings.debug_level == 2


def test_a_store_below_the_home_folders_cache_needs_no_approval(computer: Computer) -> None:
    computer.repository(cache=[f"disk://{computer.home}/.anyclaude/cache/answers"])
    assert computer.left_out() == set()


def test_a_hub_model_that_is_on_this_machine_needs_no_approval(computer: Computer) -> None:
    folder = computer.home / ".anyclaude" / "models" / "org" / "name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    computer.repository(model="org/name")
    assert computer.left_out() == set()


def test_every_setting_has_a_rule() -> None:
    for key in SETTING_KEYS:
        assert isinstance(key.harmless, Harmless)
        assert "harmless" in (msgspec.inspect.type_info(key.kind).extra or {}), key.dotted  # type: ignore[attr-defined]


def test_a_value_that_changes_nothing_needs_no_approval(computer: Computer) -> None:
    computer.repository(host="127.0.0.1", model=None, baseUrl="https://thief.example/v1")
    found = computer.load(environ={"VLLM_MLX_URL": "http://localhost:9000/v1"})
    assert found.unapproved is None
    assert found.settings.base_url == "http://localhost:9000/v1"


def test_an_approval_is_remembered_for_this_content_alone(computer: Computer) -> None:
    computer.repository(allowedHosts=["box.local"])
    assert computer.load(answer=True).settings.allowed_hosts == ("box.local",)
    assert computer.load().settings.allowed_hosts == ("box.local",)
    assert len(computer.asked) == 1
    computer.repository(allowedHosts=["thief.example"])
    assert computer.load().settings.allowed_hosts == ()


def test_an_approval_counts_for_its_own_folder(computer: Computer, tmp_path: Path) -> None:
    computer.repository(allowedHosts=["box.local"])
    computer.load(answer=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / ".anyclauderc.json").write_bytes((computer.cwd / ".anyclauderc.json").read_bytes())
    found = load_configuration({}, {}, other, computer.home)
    assert found.settings.allowed_hosts == ()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such names")
def test_a_folder_whose_name_is_no_utf_8_can_be_approved(computer: Computer, tmp_path: Path) -> None:
    computer.cwd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    computer.cwd.mkdir()
    computer.repository(allowedHosts=["box.local"])
    assert computer.load(answer=True).settings.allowed_hosts == ("box.local",)
    assert computer.load().unapproved is None


def test_an_approval_can_be_taken_back(computer: Computer) -> None:
    computer.repository(allowedHosts=["box.local"])
    approvals = computer.load(answer=True).approvals
    assert approvals.remove(computer.cwd / ".anyclauderc.json")
    assert computer.left_out() == {"allowed_hosts"}


def test_a_repository_cannot_bring_its_own_approvals(computer: Computer) -> None:
    """Not even to a user whose ANYCLAUDE_HOME is a relative folder."""
    computer.repository(allowedHosts=["thief.example"])
    digests = computer.load(answer=True)
    approved = computer.home / ".anyclaude" / "approved.json"
    (computer.cwd / "state").mkdir()
    approved.rename(computer.cwd / "state" / "approved.json")
    assert computer.load(environ={"ANYCLAUDE_HOME": "state"}).settings.allowed_hosts == ()
    assert digests.settings.allowed_hosts == ("thief.example",)


@pytest.mark.parametrize("content", ["", "[1]", "{", "\xff", '{"a": 1}'])
def test_a_damaged_list_of_approvals_approves_nothing(computer: Computer, content: str) -> None:
    computer.repository(allowedHosts=["box.local"])
    computer.load(answer=True)
    (computer.home / ".anyclaude" / "approved.json").write_text(content)
    assert computer.left_out() == {"allowed_hosts"}


def test_the_home_folders_file_and_a_named_file_need_no_approval(computer: Computer) -> None:
    computer.own(allowedHosts=["box.local"])
    assert computer.load().settings.allowed_hosts == ("box.local",)
    at_home = load_configuration({}, {}, computer.home, computer.home)
    assert (at_home.settings.allowed_hosts, at_home.unapproved) == (("box.local",), None)
    computer.repository(allowedHosts=["other.local"])
    named = computer.load(config=str(computer.cwd / ".anyclauderc.json"))
    assert (named.settings.allowed_hosts, named.unapproved) == (("other.local",), None)


def test_a_home_folder_reached_by_a_link_is_the_home_folder(computer: Computer, tmp_path: Path) -> None:
    computer.own(allowedHosts=["box.local"])
    link = tmp_path / "link"
    link.symlink_to(computer.home)
    assert load_configuration({}, {}, computer.home, link).unapproved is None


@pytest.mark.parametrize(
    ("own", "keys", "flags", "url"),
    [
        ({}, {"baseUrl": "https://gpu.example/v1"}, {}, "https://gpu.example/v1"),
        ({}, {"baseUrl": "http://localhost:9000/v1"}, {}, "http://localhost:9000/v1"),
        ({}, {"port": 9000}, {}, "http://127.0.0.1:9000/v1"),
        ({"port": 8000, "host": "::1"}, {"port": 9000}, {}, "http://[::1]:9000/v1"),
        ({"baseUrl": "http://localhost:8000/v1"}, {"port": 9000}, {}, "http://127.0.0.1:9000/v1"),
        ({}, {"host": "127.0.0.2"}, {}, "http://127.0.0.2:8081/v1"),
        ({}, {"host": "127.0.0.2"}, {"port": 9000}, "http://127.0.0.2:9000/v1"),
    ],
)
def test_a_key_is_never_sent_to_the_address_of_another_file(
    computer: Computer, own: dict[str, Any], keys: dict[str, Any], flags: dict[str, Any], url: str
) -> None:
    computer.own(apiKey=SECRET, **own)
    computer.repository(**keys)
    found = computer.load(answer=True, **flags)
    assert (found.settings.base_url, found.settings.api_key) == (url, Settings(home=computer.home).api_key)
    assert "is not sent to the address of another file" in str(found.origins["api_key"])


def test_a_key_that_the_user_requires_is_not_replaced_by_the_default_one(computer: Computer) -> None:
    computer.own(apiKey=SECRET, requireApiKey=True, baseUrl="http://localhost:8000/v1")
    computer.repository(host="127.0.0.1", maxQueue=7)
    found = computer.load().settings
    assert (found.base_url, found.api_key, found.max_queue) == ("http://localhost:8000/v1", SECRET, 7)
    assert computer.left_out() == {"host"}


def test_a_server_that_others_reach_does_not_start_without_its_files_key(computer: Computer) -> None:
    computer.own(apiKey=SECRET, host="0.0.0.0", requireApiKey=True)
    computer.repository(port=9000)
    assert computer.left_out() == {"port"}
    with pytest.raises(ConfigError, match=r"everybody knows the apiKey \(default, because the key in .*another file\)"):
        computer.load(answer=True)


@pytest.mark.parametrize("own", [{}, {"port": 8081}, {"baseUrl": "http://127.0.0.1:8081/v1"}])
@pytest.mark.parametrize("keys", [{"port": 8081}, {"host": "127.0.0.1"}, {"baseUrl": "http://127.0.0.1:8081/v1"}])
def test_a_key_is_sent_to_its_own_address_whoever_repeats_that(
    computer: Computer, own: dict[str, Any], keys: dict[str, Any]
) -> None:
    computer.own(apiKey=SECRET, **own)
    computer.repository(**keys)
    assert computer.load().settings.api_key == SECRET


@pytest.mark.parametrize("own", [{"baseUrl": "https://gpu.example/v1"}, {"port": 9000}])
def test_a_key_of_the_repository_is_not_sent_to_the_address_of_the_user(
    computer: Computer, own: dict[str, Any]
) -> None:
    computer.own(apiKey=SECRET, **own)
    alone = load_configuration({}, {}, computer.home, computer.home).settings
    computer.repository(apiKey="theirs")
    found = computer.load(answer=True).settings
    assert (found.base_url, found.api_key) == (alone.base_url, SECRET)


def test_a_key_goes_with_the_url_of_its_file_and_of_the_environment(computer: Computer) -> None:
    assert computer.load(environ={"VLLM_MLX_URL": "https://gpu.example/v1"}).settings.api_key == SECRET
    computer.repository(baseUrl="https://gpu.example/v1", apiKey="ours")
    assert computer.load(answer=True).settings.api_key == "ours"


def test_a_known_key_does_not_open_a_server_that_others_reach(computer: Computer) -> None:
    computer.own(apiKey=SECRET, host="0.0.0.0", requireApiKey=True)
    computer.repository(apiKey="theirs")
    assert computer.left_out() == {"api_key"}
    assert computer.load().settings.api_key == SECRET
