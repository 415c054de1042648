"""Names that clients may call the served model by."""

import pytest

from service.errors import ModelNotFound
from service.http.model_names import check_model
from service.profile import ModelProfile

PROFILE = ModelProfile(id="org/Some-Model", fingerprint="1", context_length=100, aliases=("~/models/some",))


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
    ],
)
def test_names_of_the_served_model(name: str | None) -> None:
    check_model(PROFILE, name)


@pytest.mark.parametrize("name", ["org", "some-model", "llama3", "demo", "other/Some-Model", " "])
def test_other_names_are_refused_with_the_right_one(name: str) -> None:
    with pytest.raises(ModelNotFound, match="org/Some-Model") as refused:
        check_model(PROFILE, name)
    assert refused.value.param == "model"
