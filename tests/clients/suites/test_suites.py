import asyncio
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.app import create_app
from service.executor.scripted import ScriptedExecutor
from tests.clients.suites.failures import ANTHROPIC, OPENAI, Failure
from tests.serving import running, settings

pytestmark = pytest.mark.suites

INSTALLED = Path(__file__).parents[2] / ".cache" / "suites"
PATIENCE_SECONDS = 600.0

SUITES = {
    "openai": (
        "/v1",
        ("chat", "responses", "test_completions.py", "test_responses.py", "test_embeddings.py", "test_models.py"),
        OPENAI,
    ),
    "anthropic": (
        "",
        (
            "messages",
            "test_messages.py",
            "test_models.py",
            "beta/messages",
            "beta/test_messages.py",
            "beta/test_models.py",
        ),
        ANTHROPIC,
    ),
}


@pytest.mark.parametrize("sdk", SUITES)
async def test_an_official_suite_fails_only_where_it_is_known_why(sdk: str, tmp_path: Path) -> None:
    if not (INSTALLED / "installed").exists():
        pytest.skip("The suites are not installed: run tests/clients/suites/install.sh")
    path, files, failures = SUITES[sdk]
    configured = settings(tmp_path, aliases={"*": "scripted"})
    async with running(create_app(configured, executor=ScriptedExecutor()), configured) as url:
        errors = await _errors_of(sdk, f"{url}{path}", files, tmp_path / "report.xml")

    unknown = [f"{test}: {error}" for test, error in errors.items() if error and not _reasons(failures, test, error)]
    assert not unknown, "\n".join(unknown)
    for failure in failures:
        named = [test for test in errors if failure.names(test)]
        passed = [test for test in named if not errors[test]]
        assert named, f"No test is named {failure.tests}. Take it off the list."
        assert not passed, f"These do not fail any more. Take them off the list: {passed}"
    failed = sum(map(bool, errors.values()))
    print(f"{sdk}: {len(errors) - failed} passed, {failed} failed with a known reason")


async def _errors_of(sdk: str, url: str, files: tuple[str, ...], report: Path) -> dict[str, str]:
    """Runs the files of the suite. Returns the error of every test by its id, "" if it passed."""
    process = await asyncio.create_subprocess_exec(
        *(INSTALLED / "bin" / "python", "-m", "pytest", "-q", "-n", "0", f"--junit-xml={report}"),
        # Most of the time would go into tracebacks and captured log lines.
        *("--tb=line", "-p", "no:logging", "--durations=0", "--durations-min=60"),
        *(f"tests/api_resources/{file}" for file in files),
        cwd=INSTALLED / sdk,
        env=os.environ | {"TEST_API_BASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode in (0, 1), out.decode()  # 1: some tests failed
    return dict(_read(report))


def _read(report: Path) -> Iterator[tuple[str, str]]:
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        bad = [element.text or "" for element in case if element.tag in ("failure", "error")]
        place = (case.get("classname") or "").removeprefix("tests.").replace(".", "/")
        yield f"{place}::{case.get('name')}", "\n".join(bad)


def _reasons(failures: tuple[Failure, ...], test: str, error: str) -> list[Failure]:
    return [failure for failure in failures if failure.names(test) and failure.explains(error)]
