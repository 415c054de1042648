import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from service.generation import SamplingParams
from service.models.demo import DEMO_MODEL, DEMO_SAMPLING
from service.models.errors import InvalidModel
from service.models.fingerprint import fingerprint
from service.models.folder import read_config, read_json, stat_weights
from service.models.names import DEMO
from service.profile import ModelProfile
from service.settings import SamplingDefaults, Settings
from service.storage import open_regular

# The key in most architectures, GPT-2, MPT, ChatGLM, Falcon and others.
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "n_ctx")
NESTED_CONFIGS = ("text_config", "language_config", "llm_config")
# Recurrent models have no limit.
DEFAULT_CONTEXT_LENGTH = 32_768
ADAPTER_FILES = ("adapter_config.json", "adapters.safetensors")
REASONING_WORDS = (
    *("<think", "enable_thinking", "reasoning_content", "<|channel|>analysis", "[THINK]", "<seed:think", "<mm:think"),
    *("<|channel>thought", "<|START_THINKING|>", "<|inner_prefix|>", "[BEGIN FINAL RESPONSE]", "to=self<|message|>"),
)
# transformers writes 1e30 for a tokenizer without a limit; some models have other very large numbers.
LARGEST_CONTEXT_LENGTH = 100_000_000


class GenerationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`top_k` 0 or -1 means all tokens."""

    do_sample: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0)] | None = None


def read_profile(path: Path, settings: Settings, *, home: Path) -> ModelProfile:
    """Reads all weights the first time, for the fingerprint. Raises `ModelError`."""
    adapter = None if settings.adapter is None else Path(settings.adapter)
    profile = read_properties(path, settings, home=home)
    return msgspec.structs.replace(profile, fingerprint=fingerprint(path, home, adapter))


def read_properties(path: Path, settings: Settings, *, home: Path) -> ModelProfile:
    """Returns at once, without a fingerprint. Raises `ModelError`."""
    if settings.adapter is not None:
        require_adapter(settings.adapter)
    tokenizer_config = read_json(path / "tokenizer_config.json")
    of_files = context_length(read_config(path), tokenizer_config)
    return ModelProfile(
        id=model_id(path, home),
        fingerprint="",
        context_length=min(of_files, settings.context_length or of_files),
        sampling=resolve_sampling(_sampling_defaults(settings, path), read_generation_config(path)),
        created=int(max(status.st_mtime for status in stat_weights(path))),
        aliases=(settings.model or DEMO,),
        thinks=_thinks(path, tokenizer_config),
        thinking=settings.thinking or "default",
        thinking_budgets={str(effort): tokens for effort, tokens in settings.thinking_budgets.items()},
        end_loops=settings.end_loops,
        answer_after_reasoning=settings.answer_after_reasoning,
    )


def require_adapter(folder: str) -> Path:
    """Raises `InvalidModel`."""
    path = Path(folder)
    missing = [name for name in ADAPTER_FILES if not os.path.isfile(path / name)]
    if missing:
        raise InvalidModel(
            f"{path} has no {' and no '.join(missing)}: a LoRA adapter is a folder that 'mlx_lm.lora --train "
            "--adapter-path FOLDER' has written."
        )
    return path


def _thinks(path: Path, tokenizer_config: dict[str, Any]) -> bool:
    try:
        with open_regular(path / "chat_template.jinja") as file:
            template = file.read().decode(errors="replace")
    except OSError:
        template = str(tokenizer_config.get("chat_template", ""))
    return any(word in template for word in REASONING_WORDS)


def _sampling_defaults(settings: Settings, path: Path) -> SamplingDefaults:
    if settings.model not in (None, DEMO) or path.name != DEMO_MODEL.name:
        return settings.sampling
    return msgspec.structs.replace(DEMO_SAMPLING, **_given(settings.sampling))


def model_id(path: Path, home: Path) -> str:
    """Returns the folder's name, with the organisation for a Hugging Face model."""
    ours = home.absolute() / "models"
    if path.is_relative_to(ours):
        return path.relative_to(ours).as_posix()
    if path.parent.name == "snapshots" and path.parents[1].name.startswith("models--"):
        return path.parents[1].name.removeprefix("models--").replace("--", "/", 1)
    return path.name


def context_length(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> int:
    """Returns the smaller of the model's and its tokenizer's limit, in tokens."""
    nested = (config[key] for key in NESTED_CONFIGS if isinstance(config.get(key), dict))
    lengths = [_first_length(part, CONTEXT_KEYS) for part in (config, *nested)]
    of_model = next((length for length in lengths if length is not None), None)
    of_tokenizer = _first_length(tokenizer_config, ("model_max_length",))
    return min((length for length in (of_model, of_tokenizer) if length is not None), default=DEFAULT_CONTEXT_LENGTH)


def read_generation_config(path: Path) -> GenerationConfig:
    """Raises `InvalidModel`."""
    file = path / "generation_config.json"
    try:
        return msgspec.convert(read_json(file), GenerationConfig)
    except msgspec.ValidationError as exc:
        raise InvalidModel(f"{file} cannot be used: {exc}.") from exc


def resolve_sampling(settings: SamplingDefaults, model: GenerationConfig) -> SamplingParams:
    """Settings win over the model's file, which wins over greedy decoding. `do_sample` false turns random sampling off;
    the repetition penalty also applies to greedy decoding."""
    from_model = SamplingDefaults(repetition_penalty=model.repetition_penalty)
    if model.do_sample is not False:
        from_model = msgspec.structs.replace(
            from_model,
            temperature=model.temperature,
            top_p=model.top_p,
            top_k=None if model.top_k is None else max(model.top_k, 0),
            min_p=model.min_p,
        )
    given = {**_given(from_model), **_given(settings)}
    return SamplingParams(**given)


def _given(defaults: SamplingDefaults) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(defaults).items() if value is not None}


def _first_length(config: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        length = config.get(key)
        if isinstance(length, int | float) and not isinstance(length, bool) and 0 < length <= LARGEST_CONTEXT_LENGTH:
            return int(length)
    return None
