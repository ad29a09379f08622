"""``rdu-batch completions bash``: what a shell needs to complete verbs, options and job files."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from rdu_batch.errors import UsageError

#: The variable by which a shell asks for words; click takes it from the program's name.
VARIABLE: Final = "_RDU_BATCH_COMPLETE"


@click.command(
    epilog="""\b
bash: add to ~/.bashrc    eval "$(rdu-batch completions bash)"
zsh:  add to ~/.zshrc     eval "$(rdu-batch completions zsh)"
fish: rdu-batch completions fish > ~/.config/fish/completions/rdu-batch.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completions(shell: str) -> int:
    """Print the completion script of SHELL."""
    from rdu_batch.cli.main import rdu_batch

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"there are no completions for {shell}; wanted bash, zsh or fish")
    # Not source(): for bash it would start one, only to ask for its version.
    complete = kind(rdu_batch, {}, "rdu-batch", VARIABLE)
    click.echo(complete.source_template % complete.source_vars())
    return 0
