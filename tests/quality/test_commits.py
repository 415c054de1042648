"""Subjects of commits fit on one line of every tool that shows them."""

import os
import subprocess

import pytest

from tests.quality.bounds import LONGEST_SUBJECT, SUBJECTS_SINCE
from tests.quality.source import ROOT


def subjects_since(commit: str) -> list[str] | None:
    """None if this is no clone, or one without the commit."""
    command = ["git", "log", "--no-merges", "--format=%s", f"{commit}..HEAD"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def test_subjects_of_commits_are_short() -> None:
    subjects = subjects_since(SUBJECTS_SINCE)
    if subjects is None:
        reason = f"the history since {SUBJECTS_SINCE} is not here"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    assert not [subject for subject in subjects if len(subject) > LONGEST_SUBJECT]
