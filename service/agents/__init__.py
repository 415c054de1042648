"""Coding agents that the launcher runs on the local server.

- `agent`: what an agent gets (`AgentServer`) and what it needs (`Setup`)
- `table`: every agent, one entry each; a new agent is one more entry
- `claude_code`: the environment of Claude Code, the longest entry
- `script`: the same settings as lines for a shell
- `process`: runs an agent's program, with its signals and its exit code
"""
