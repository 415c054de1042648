from collections.abc import Callable


class ForcedTokens:
    """Guesses the tokens that the grammar prescribes. The model may split the same text differently."""

    def __init__(self, forced: Callable[[], list[int]]) -> None:
        self._find = forced
        self._forced: list[int] = []

    def can_draft(self) -> bool:
        self._forced = self._find()
        return len(self._forced) > 0

    def basis(self) -> int:
        return 0

    def draft(self, at_most: int) -> list[int]:
        return self._forced[:at_most]

    def follow(self, tokens: list[int]) -> None:
        """Does nothing: the constraint follows the tokens itself."""
