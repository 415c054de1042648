"""The table of chat templates in `docs/models.md`. `python -m tests.chat_templates.table` writes it anew."""

from pathlib import Path

from tests.chat_templates.expectations import FAMILY, REASONING, REFUSED
from tests.chat_templates.requests import REQUESTS

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- templates: written by tests.chat_templates.table -->", "<!-- end of templates -->"


def render_table() -> str:
    rows = ["| template | requests right | format of calls | reasoning opens with |", "|---|---|---|---|"]
    for name, family in FAMILY.items():
        whole = f"{len(REQUESTS)} of {len(REQUESTS)}"
        if name in REFUSED:
            whole = f"the template refuses: {REFUSED[name]}"
        marker = f"`{REASONING[name]}`" if name in REASONING else "none"
        rows.append(f"| {name} | {whole} | {family or 'any'} | {marker.replace('|', chr(92) + '|')} |")
    return "\n".join([BEGIN, *rows, END])


def write() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + render_table() + rest.partition(END)[2])


if __name__ == "__main__":
    write()
