"""A configured model has its own settings, and the server's where it has none."""

from service.model_registry.configured import settings_of
from service.settings import ModelSettings, SamplingDefaults, Settings
from tests.no_home import NO_HOME

SERVER = Settings(
    home=NO_HOME,
    model="main",
    adapter="of main",
    draft_model="of main",
    context_length=500,
    thinking="off",
    sampling=SamplingDefaults(temperature=0.5, top_k=20),
    cache_policy="all",
)


def test_a_model_has_the_servers_defaults_and_no_other_models_files() -> None:
    found = settings_of(SERVER, ModelSettings(model="other"))
    assert (found.model, found.adapter, found.draft_model) == ("other", None, None)
    assert (found.context_length, found.thinking, found.sampling) == (500, "off", SERVER.sampling)
    assert found.cache_policy == "all"


def test_a_models_own_defaults_go_before_the_servers() -> None:
    own = ModelSettings(
        model="other",
        adapter="lora",
        draft_model="small",
        context_length=900,
        thinking="on",
        sampling=SamplingDefaults(temperature=1.5),
    )
    found = settings_of(SERVER, own)
    assert (found.adapter, found.draft_model, found.context_length) == ("lora", "small", 900)
    assert (found.thinking, found.sampling) == ("on", SamplingDefaults(temperature=1.5, top_k=20))
