"""`tokopt completion`: what makes a shell complete commands, options and names."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import get_completion_class

from tokopt.cli.help import Command
from tokopt.cli.options import debugging
from tokopt.cli.shell import ExitStatus
from tokopt.errors import InputError, not_one_of

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_TOKOPT_COMPLETE"  # click's name for it
EXAMPLES = """\b
Examples:
  eval "$(tokopt completion bash)"                     # for this shell
  echo 'eval "$(tokopt completion bash)"' >> ~/.bashrc  # for every one (zsh: ~/.zshrc)
  tokopt completion fish > ~/.config/fish/completions/tokopt.fish

Then Tab completes commands, options, names of models, accelerators, price lists and features, and files. bash has to be
4.4 or newer."""


@click.command("completion", cls=Command, epilog=EXAMPLES)
@click.argument("shell", metavar="[bash|zsh|fish]", required=False)
@debugging
def command(shell: str | None) -> int:
    """Print the script that makes a shell complete tokopt's words.

    Without a name, for the shell that SHELL names.
    """
    from tokopt.cli.app import app

    name = shell or PurePath(os.environ.get("SHELL", "")).name
    if not name:
        raise InputError(f"which shell? There are scripts for {', '.join(SHELLS)}: tokopt completion bash")
    if name not in SHELLS:
        raise not_one_of("shell", name, SHELLS)
    found = get_completion_class(name)
    assert found is not None
    click.echo(found(app, {}, "tokopt", VARIABLE).source())
    return ExitStatus.ANSWERED
