import os
from pathlib import Path

import click

from service.cli.configuration import asked_values
from service.cli.exits import Exit, Failure
from service.config import FILE_NAME, ConfigError, load_configuration


@click.command("trust", short_help="Approve this folder's .anyclauderc.json.")
@click.option("--revoke", is_flag=True, help="Take the approval back.")
def command(revoke: bool) -> None:
    """Approve the .anyclauderc.json of the working folder as it is now.

    Such a file may come with a cloned repository. Values that could send data elsewhere, let others in or touch files
    outside of anyclaude's home folder take effect only after approval. A changed file has to be approved again. The
    file in your home folder needs no approval.
    """
    file = Path.cwd() / FILE_NAME
    try:
        found = load_configuration({}, os.environ, Path.cwd(), Path.home())
    except ConfigError as exc:
        raise Failure(Exit.CONFIG, str(exc)) from None
    if revoke:
        revoked = found.approvals.remove(file)
        click.echo(f"{file} is no longer approved." if revoked else f"{file} was not approved.")
    elif not file.exists():
        raise Failure(Exit.FAILED, f"There is no {file}.")
    elif found.unapproved is None:
        click.echo(f"{file} needs no approval: it is approved already, or it asks for nothing that needs approval.")
    else:
        found.approvals.add(file, found.unapproved.content)
        click.echo(f"Approved {file} with these values:")
        for line in asked_values(found.unapproved):
            click.echo(line)
