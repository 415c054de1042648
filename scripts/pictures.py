"""Makes the README's pictures from a real run with the demo model. Needs Chromium with its driver, and curl.

Run it in the project's folder: .venv/bin/python -m scripts.pictures
"""

import asyncio
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.dashboard.browser import Page, open_browser
from tests.server_process import environment, serving

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
COLUMNS = 96
ASK = (
    "curl -s -o answer.json -w '%header{cache-status}: %{time_total} s\\n' \\\n"
    "    $VLLM_MLX_URL/chat/completions --json \\\n"
    """    '{"messages": [{"role": "user", "content": "Is water wet?"}], "max_tokens": 9}'"""
)
SESSION = ("anyclaude run demo 'What is the capital of France?'", ASK, ASK, "anyclaude stats")
# Rich refers to fonts on another host.
FONT_FACES = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def draw_terminal(folder: Path, url: str) -> None:
    """Runs the commands of `SESSION`, and draws what a terminal shows."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    variables = environment(folder) | {"VLLM_MLX_URL": f"{url}/v1", "COLUMNS": str(COLUMNS)}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    for command in SESSION:
        console.print(Text("$ ", style="green").append(command, style="bold"), soft_wrap=True)
        done = subprocess.run(  # noqa: S603 - the commands above
            ["/bin/bash", "-c", command], cwd=folder, env=variables, capture_output=True, text=True, check=True
        )
        console.print(Text.from_ansi(done.stderr + done.stdout))
    drawing = console.export_svg(title="anyclaude", unique_id="terminal")
    (PICTURES / "terminal.svg").write_text(FONT_FACES.sub("", drawing))


async def photograph(folder: Path, url: str) -> None:
    """Asks two questions in the chat, and takes a picture of two panels."""
    with open_browser(folder / "profile") as browser:
        page = Page(browser)
        await page.emulate(width=1100, height=760)
        await page.open(f"{url}/dashboard#chat")
        await page.until("#status", "healthy")
        for turn, country in enumerate(("Italy", "Spain"), 1):
            await page.type("#question", f"What is the capital of {country}?\n")
            await page.until(f"#turns > :nth-child({2 * turn}) .badge", "total")
        await page.screenshot(PICTURES / "chat.png")
        await page.open(f"{url}/dashboard#now")
        await page.until("#recent", "hit")
        await page.screenshot(PICTURES / "now.png")


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    models = Path(os.environ.get("ANYCLAUDE_HOME") or Path.home() / ".anyclaude") / "models"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "home"
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "models").symlink_to(models)
        with serving(folder / "server", "demo") as server:
            draw_terminal(folder, server.url)
            asyncio.run(photograph(folder, server.url))


if __name__ == "__main__":
    main()
