import logging
from collections.abc import Callable
from pathlib import Path

from service.executor.loading.cache_kinds import can_take_back, can_undo
from service.executor.loading.model import LoadedModel, load_model
from service.executor.speculation.draft_model import DraftModel, vocabulary_difference
from service.executor.speculation.drafter import Drafter
from service.executor.speculation.experience import Experience
from service.executor.speculation.forced import ForcedTokens
from service.executor.speculation.lookup import PromptLookup
from service.models.errors import InvalidModel
from service.settings import Settings

log = logging.getLogger(__name__)


class Drafters:
    """A sequence's drafters, best first: its grammar, which is nearly always right; `lookup`, which is free; the model
    `draft`."""

    def __init__(self, *, lookup: bool, draft: DraftModel | None = None) -> None:
        self.experience = Experience()
        self._lookup = lookup
        self._draft = draft

    @property
    def active(self) -> bool:
        return self._lookup or self._draft is not None

    @property
    def nbytes(self) -> int:
        return self._draft.nbytes if self._draft is not None else 0

    def bytes_for(self, tokens: int) -> int:
        return self._draft.cost.bytes_for([tokens]) - self._draft.nbytes if self._draft is not None else 0

    def forget(self) -> None:
        if self._draft is not None:
            self._draft.forget()

    def choose(
        self, caller: str, tokens: list[int], forced: Callable[[], list[int]] | None, *, with_model: bool
    ) -> list[Drafter]:
        """`forced` returns the tokens that the grammar prescribes. `with_model`: memory for the draft model is free."""
        drafters: list[Drafter] = [ForcedTokens(forced)] if forced is not None else []
        if self._lookup:
            drafters.append(PromptLookup(tokens))
        if self._draft is not None and with_model:
            self._draft.begin(caller, tokens)
            drafters.append(self._draft)
        return drafters


def open_drafters(loaded: LoadedModel, settings: Settings, *, chunk_tokens: int) -> Drafters:
    """The drafters are inactive if the settings or the state allow none. Raises what `load_model` raises."""
    lookup = settings.prompt_lookup
    if settings.draft_model is None and not lookup:
        return Drafters(lookup=False)
    if not can_undo(loaded.model):
        if settings.draft_model is not None:
            log.warning("Speculation is off for this model: its state cannot be taken back to an earlier token")
        return Drafters(lookup=False)
    draft = None
    if settings.draft_model is not None:
        draft = _load_draft(Path(settings.draft_model), loaded, settings, chunk_tokens)
    return Drafters(lookup=lookup, draft=draft)


def _load_draft(path: Path, main: LoadedModel, settings: Settings, chunk_tokens: int) -> DraftModel:
    loaded = load_model(path, dequantize_on_cpu=settings.dequantize_on_cpu, wired="off")
    difference = vocabulary_difference(main.tokenizer.get_vocab(), loaded.tokenizer.get_vocab())
    if difference:
        raise InvalidModel(
            f"The draft model in {path} does not know the same tokens as the model: {difference}. Expected a smaller "
            "model of the same family; set 'draftModel' to one, or leave it out."
        )
    if not can_take_back(loaded.model):
        raise InvalidModel(
            f"The draft model in {path} cannot take back what it has read: it has sliding windows or a recurrent "
            "state. Expected a plain transformer; set 'draftModel' to one, or leave it out."
        )
    return DraftModel(loaded.model, logits=main.logits, chunk_tokens=chunk_tokens)
