"""Scripts, the Makefile and the shell in launchd's file run with what macOS brings: bash 3.2 and BSD's programs."""

import html
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each name is what a reader looks for; `timeout` may stand behind a check that it is there.
FORBIDDEN = {
    "declare -A": r"\b(declare|local|typeset) -\w*[An]\b",
    "mapfile": r"\b(mapfile|readarray)\b",
    "case of letters": r"\$\{\w+(,,?|\^\^?)\}",
    "&>>": r"&>>",
    "empty arrays": r'(?<!\+)"\$\{\w+\[@\]\}"(?!\})',
    "readlink -f": r"\breadlink -f\b",
    "sed -i": r"\bsed (-\w+ )*-\w*i\b",
    "sed -r": r"\bsed -\w*r\b",
    "date -d": r"\bdate (-d|--date|\+\S*%N)\b",
    "stat -c": r"\bstat (-c|--format)\b",
    "grep -P": r"\bgrep -\w*P",
    "xargs -r": r"\bxargs -\w*r\b",
    "GNU programs": r"\b(nproc|setsid|tac|shuf|realpath|(sha(1|224|256|384|512)|md5)sum|flock)\b",
    "base64 -w": r"\bbase64 (-w|--wrap)",
    "sort -V": r"\bsort -\w*V",
    "head -n -N": r"\bhead (-[nc] ?|--(lines|bytes)=)-",
    "timeout": r"^\s*@?timeout\b|[|&;] *timeout\b",
    "mktemp --": r"\bmktemp --",
    "find -printf": r"\bfind\b.*-printf\b",
    "cp --": r"\b(cp|mv|rm|ls|mkdir|du|head|sort) --",
}
# Arrays that are never empty.
FILLED = {"packages", "install"}


def scripts() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.sh", ".ci/run", "Makefile", "deploy/*.plist"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


def violations(text: str) -> list[str]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        code = re.sub(r"(^|\s)#.*", "", line)
        for name, pattern in FORBIDDEN.items():
            matches = [match.group() for match in re.finditer(pattern, code)]
            filled = name == "empty arrays" and all(any(array in match for array in FILLED) for match in matches)
            guarded = name == "timeout" and "command -v timeout" in text
            if matches and not filled and not guarded:
                found.append(f"{number}: {name}: {line.strip()}")
    return found


@pytest.mark.parametrize("script", scripts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_run_on_macos(script: Path) -> None:
    text = script.read_text()
    assert violations(html.unescape(text) if script.suffix == ".plist" else text) == []


def test_shell_is_found_in_other_files_too() -> None:
    found = {str(script.relative_to(ROOT)) for script in scripts()}
    assert {".ci/run", "Makefile", "deploy/launchd/anyclaude.plist"} < found


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("declare -A table", True),
        ("local -n name=$1", True),
        ('echo "${name,,}"', True),
        ('run "${options[@]}"', True),
        ('run ${options[@]+"${options[@]}"}', False),
        ("timeout 5 make", True),
        ("\t@timeout 5 make", True),
        ("if command -v timeout; then timeout 5 make; fi", False),
        ("sed -i s/a/b/ file", True),
        ("sed -n s/a/b/p file", False),
        ("mktemp -d", False),
        ("# date -d is GNU's", False),
        ("date -d yesterday", True),
        ("grep -oP x", True),
        ("nproc", True),
        ("sha256sum wheel", True),
        ("flock lock make", True),
        ("base64 -w0 key", True),
        ("base64 key", False),
        ("sort -rV versions", True),
        ("sort -n sizes", False),
        ("head -n -1 lines", True),
        ("head -n 1 lines", False),
    ],
)
def test_the_rules_find_what_they_are_for(line: str, wrong: bool) -> None:
    assert bool(violations(line)) == wrong
