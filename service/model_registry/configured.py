import msgspec

from service.settings import ModelSettings, Settings


def settings_of(settings: Settings, model: ModelSettings) -> Settings:
    own_sampling = {name: value for name, value in msgspec.structs.asdict(model.sampling).items() if value is not None}
    return msgspec.structs.replace(
        settings,
        model=model.model,
        adapter=model.adapter,
        draft_model=model.draft_model,
        context_length=model.context_length or settings.context_length,
        sampling=msgspec.structs.replace(settings.sampling, **own_sampling),
        thinking=model.thinking or settings.thinking,
        models={},
        aliases={},
    )
