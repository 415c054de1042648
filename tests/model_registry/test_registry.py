"""Names that clients may call a model by."""

import pytest

from cache_backends import open_backend
from service.errors import BadRequest, ModelNotFound
from service.executor.scripted import ScriptedExecutor
from service.generation import SamplingParams
from service.model_registry.registry import ModelRegistry
from service.profile import ModelProfile
from service.response_cache.caching_executor import CachingExecutor
from service.settings import Settings
from tests.no_home import NO_HOME

MAIN = ModelProfile(id="org/Some-Model", fingerprint="1", context_length=100, aliases=("~/models/some",))
SMALL = ModelProfile(id="small", fingerprint="2", context_length=100, aliases=("org/Little",))


def registry(*profiles: ModelProfile, aliases: dict[str, str] | None = None) -> ModelRegistry:
    models = {profile.id: ScriptedExecutor(profile=profile) for profile in profiles}
    settings = Settings(home=NO_HOME)
    cached = CachingExecutor(models[profiles[0].id], open_backend(settings.cache), settings)
    return ModelRegistry(models, cached, aliases=aliases)


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "org/Some-Model",
        "Some-Model",
        "default",
        "~/models/some",
        "claude-opus-4-8",
        "claude-3-5-haiku-latest",
        "gpt-5-mini",
        "chatgpt-4o-latest",
        "text-embedding-3-small",
    ],
)
def test_names_of_the_only_model(name: str | None) -> None:
    assert registry(MAIN).find(name).profile is MAIN


@pytest.mark.parametrize("name", ["org", "some-model", "llama3", "demo", "other/Some-Model", " "])
def test_other_names_are_refused_with_the_right_ones(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"Served: 'org/Some-Model', 'small'") as refused:
        registry(MAIN, SMALL).find(name)
    assert refused.value.param == "model"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("small", SMALL),
        ("org/Little", SMALL),
        ("claude-3-5-haiku-latest", SMALL),
        ("claude-opus-4-8", MAIN),
        ("anything", MAIN),
        ("default", MAIN),
        (None, MAIN),
    ],
)
def test_the_first_alias_that_matches_wins(name: str | None, found: ModelProfile) -> None:
    aliases = {"*haiku*": "small", "claude-*": "default", "*": "org/Some-Model"}
    assert registry(MAIN, SMALL, aliases=aliases).find(name).profile is found


def test_with_aliases_no_other_foreign_name_is_known() -> None:
    with pytest.raises(ModelNotFound):
        registry(MAIN, SMALL, aliases={"*haiku*": "small"}).find("gpt-5")


def test_a_body_is_read_for_its_model_if_models_sample_differently() -> None:
    warm = ModelProfile(id="warm", fingerprint="3", context_length=100, sampling=SamplingParams(temperature=1.0))
    models = registry(MAIN, warm)
    for body, found in [(b'{"x": [1], "model": "warm"}', warm), (b'{"model": 3}', MAIN), (b"[", MAIN), (b"{}", MAIN)]:
        assert models.find_for(body).profile is found


async def test_a_model_without_a_process_cannot_be_unloaded() -> None:
    with pytest.raises(BadRequest, match="always loaded"):
        await registry(MAIN).unload("default")
