from pathlib import Path

QUESTION = "Save the word mango, then count its letters."
TIMES = 2


def save(text: str) -> str:
    """Saves a text."""
    Path("saved").write_text(text, encoding="utf-8")
    return "saved"


def count() -> str:
    """Counts the letters of the saved text."""
    return f"{len(Path('saved').read_text(encoding='utf-8'))} letters"
