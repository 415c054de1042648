import shlex

from service.agents.agent import Agent, Launch


def setup_script(agent: Agent, launch: Launch) -> str:
    setup, folder = agent.prepare(launch), launch.folder
    lines = []
    for file, content in setup.files.items():
        lines.append(f"mkdir -p {shlex.quote(str((folder / file).parent))}")
        lines.append(f"cat > {shlex.quote(str(folder / file))} <<'END'\n{content.rstrip()}\nEND")
    lines += [f"unset {variable}" for variable in setup.removed]
    lines += [f"export {variable}={shlex.quote(value)}" for variable, value in setup.variables.items()]
    lines.append(shlex.join([agent.name, *setup.arguments]))
    return "\n".join(lines)
