from typing import Protocol

# Tokens checked at once. Measured on a CPU: reading 17 tokens takes about as long as reading two one by one.
MOST_DRAFTED = 16

FIRST_DRAFTED = 3


class Drafter(Protocol):
    def can_draft(self) -> bool: ...

    def basis(self) -> int:
        """Drafts of one basis are about equally often right."""
        ...

    def draft(self, at_most: int) -> list[int]: ...

    def follow(self, tokens: list[int]) -> None: ...


class Pace:
    """`length` is a limit for guesses that were not timed yet."""

    def __init__(self) -> None:
        self.length = FIRST_DRAFTED

    def __repr__(self) -> str:
        return f"<Pace {self.length}>"

    def learn(self, drafted: int, accepted: int) -> None:
        if accepted == 0:
            self.length = max(1, self.length // 2)
        elif accepted < drafted:
            self.length = accepted + 1
        else:
            self.length = min(MOST_DRAFTED, max(self.length, 2 * drafted))
