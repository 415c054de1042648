"""axe-core finds no barrier in any panel, light, dark and on a phone."""

import os
import subprocess
from pathlib import Path

import pytest

from service.app import create_app
from service.executor.scripted import ScriptedExecutor
from tests.dashboard.browser import Page
from tests.dashboard.test_panels import BRANCHES, ask
from tests.serving import running, settings

PLACE = Path(__file__).parent
AXE = PLACE.parent / ".cache" / "axe-core" / "node_modules" / "axe-core" / "axe.min.js"
PANELS = {
    "chat": "Ask the model something",
    "now": "hit",
    "cache": "Delete",
    "models": "anyclaude models pull",
    "logs": "log",
    "connect": "ANTHROPIC_BASE_URL",
}
# Each with its target, for the report of a failure.
FOUND = """axe.run().then(({violations, passes}) => passes.length < 10 ? ["it has checked next to nothing"]
    : violations.map((v) => [v.id, v.impact, ...v.nodes.map((n) => n.html)]))"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The library's source. Without npm the test is skipped, and on CI it fails."""
    done = subprocess.run([str(PLACE / "install.sh")], capture_output=True, text=True)
    if done.returncode:
        reason = f"axe-core cannot be installed: {done.stderr.strip()}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return AXE.read_text()


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)], ids=["light", "dark", "phone"]
)
async def test_no_panel_has_a_barrier(page: Page, axe: str, tmp_path: Path, scheme: str, width: int) -> None:
    configured = settings(tmp_path, debug_level=2)
    executor = ScriptedExecutor()
    executor.prefixes = BRANCHES
    async with running(create_app(configured, executor=executor), configured) as url:
        await ask(url, "one", "one", "two")
        await page.emulate(scheme=scheme, width=width, phone=width < 500)
        await page.bypass_policy()  # it forbids foreign scripts, such as axe
        await page.open(url + "/dashboard")
        await page.until("#status", "healthy")
        await page.script(f"(() => {{ {axe} }})()")
        for panel, shown in PANELS.items():
            await page.script(f"void (location.hash = '{panel}')")
            await page.until(f"#{panel}", shown)
            if folder := os.environ.get("ANYCLAUDE_SCREENSHOTS"):
                await page.screenshot(Path(folder, f"{panel}-{scheme}-{width}.png"))
            assert await page.script(FOUND) == [], panel
