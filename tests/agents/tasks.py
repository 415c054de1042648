"""What each agent is asked to do: save a word with its shell, then read the file."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from service.events import Event, ToolCallDelta, ToolCallStarted
from service.executor.scripted import Script
from service.generation import GenerationRequest

WORD = "mango"
FILE = "saved.txt"
COMMAND = f"echo {WORD} | tee {FILE}"
PROMPT = "Save the word of the day, then read the file."
CLOSING = f"The file holds {WORD}."


class Task(msgspec.Struct, frozen=True):
    """`shell` and `reader` are the agent's tools with their arguments, where `PATH` is the file's path. `varies` is
    the role of the first message that differs when the task is repeated, "" if none does. `changes` are replacements
    in what `anyclaude connect` prints, where `URL` is the server's."""

    arguments: tuple[str, ...]
    shell: tuple[str, dict[str, Any]]
    reader: tuple[str, dict[str, Any]]
    varies: str = ""
    changes: tuple[tuple[str, str], ...] = ()


TASKS = {
    "claude": Task(
        ("-p", PROMPT, "--allowedTools", "Bash", "Read"),
        ("Bash", {"command": COMMAND, "description": "Save it"}),
        ("Read", {"file_path": "PATH"}),
    ),
    "cline": Task((PROMPT,), ("run_commands", {"commands": [COMMAND]}), ("read_files", {"files": [{"path": "PATH"}]})),
    "cn": Task(("-p", PROMPT, "--auto"), ("Bash", {"command": COMMAND}), ("Read", {"filepath": "PATH"})),
    # Codex reads files with its shell.
    "codex": Task(
        ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", PROMPT),
        ("exec_command", {"cmd": COMMAND}),
        ("get_goal", {}),
    ),
    # Copilot's system prompt holds the name of a random folder, and the message its time in milliseconds.
    "copilot": Task(
        ("-p", PROMPT, "--allow-all-tools", "--allow-all-paths"),
        ("bash", {"command": COMMAND, "description": "Save it"}),
        ("view", {"path": "PATH"}),
        varies="system",
    ),
    # Each of Kilo's messages holds its time in seconds.
    "kilo": Task(
        ("run", "--auto", PROMPT), ("bash", {"command": COMMAND}), ("read", {"filePath": "PATH"}), varies="user"
    ),
    "opencode": Task(("run", PROMPT), ("bash", {"command": COMMAND}), ("read", {"filePath": "PATH"})),
    "pi": Task(("-p", PROMPT), ("bash", {"command": COMMAND}), ("read", {"path": "PATH"})),
    "qwen": Task(
        ("-p", PROMPT, "--yolo"),
        ("run_shell_command", {"command": COMMAND, "is_background": False}),
        ("read_file", {"file_path": "PATH"}),
    ),
}

# The same agents with their other API.
OTHER_APIS = {
    "opencode": msgspec.structs.replace(
        TASKS["opencode"], changes=(("@ai-sdk/openai-compatible", "@ai-sdk/anthropic"),)
    ),
    "pi": msgspec.structs.replace(
        TASKS["pi"], changes=(("openai-completions", "anthropic-messages"), ("URL/v1", "URL"))
    ),
}

# Aider has no tools: it takes the file from the answer's text.
AIDER = ("--yes-always", "--no-git", "--message", PROMPT)


async def write_file(request: GenerationRequest) -> AsyncIterator[str | Event]:
    yield f"{FILE}\n```\n{WORD}\n```\n"


def model_for(task: Task, path: Path) -> Script:
    """A model that calls both tools of the task in turn. Requests without them, as for a title, get one word."""

    async def play(request: GenerationRequest) -> AsyncIterator[str | Event]:
        results = [message.content for message in request.messages if message.role == "tool"]
        names = {tool.name for tool in request.tools}
        if not {task.shell[0], task.reader[0]} <= names:
            yield "Saving"
        elif len(results) < 2:
            name, arguments = (task.shell, task.reader)[len(results)]
            yield ToolCallStarted(0, f"call_{len(results)}", name)
            yield ToolCallDelta(0, msgspec.json.encode(arguments).decode().replace("PATH", str(path)))
        else:
            yield CLOSING if any(WORD in result for result in results) else f"The tools gave {results}."

    return play
