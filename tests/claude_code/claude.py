"""The real Claude Code, once for each prompt, with a home of its own, on loopback, with nobody's credentials."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from tests.patience import PATIENCE_SECONDS

SHORT_PROMPT = ("--system-prompt", "You are terse.")
TERSE = ("--tools", "Bash", *SHORT_PROMPT)
"""Leaves about 4 KB of the 76 KB that Claude Code sends by itself."""


class Outcome(msgspec.Struct, frozen=True):
    """`said` is the object that `--output-format json` prints at the end."""

    code: int
    said: dict[str, Any]

    @property
    def text(self) -> str:
        text: str = self.said["result"]
        return text


class ClaudeCode:
    """`program` in the working folder `folder/work`. Every call of `ask` is a process."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.home, self.work = folder / "home", folder / "work"
        self.home.mkdir()
        self.work.mkdir()

    def ask(self, url: str, prompt: str, *arguments: str, **variables: str) -> Outcome:
        """`claude -p PROMPT ARGUMENTS` on the server at `url`, `variables` added to its environment."""
        given = {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "any",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            **variables,
        }
        return self.run([str(self.program), "-p", prompt, *arguments], given)

    def run(self, command: list[str], variables: dict[str, str]) -> Outcome:
        """Its output in JSON. Nothing of this process's environment but its PATH is passed on."""
        done = subprocess.run(
            [*command, "--output-format", "json"],
            cwd=self.work,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.stdout.startswith("{"), f"Claude Code ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return Outcome(done.returncode, json.loads(done.stdout))
