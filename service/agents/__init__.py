"""Coding agents that the launcher runs on the local server.

- `table`: one entry for each agent
- `agent`: the types `AgentServer`, `Launch`, `Setup` and `Agent`
- `claude_code`: the environment of Claude Code
- `script`: the same settings as a shell script
- `process`: runs an agent's program
"""
