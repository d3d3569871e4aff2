"""The frame around every command: finding it, and turning whatever goes wrong into one line and an exit status."""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import itertools
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from enum import IntEnum, unique
from typing import Any

import click

from tokopt.errors import InfeasibleError, TokoptError

HELP_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}  # children inherit
LONGEST_SENTENCE = 200
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@unique
class ExitStatus(IntEnum):
    """What the exit status of a command means."""

    ANSWERED = 0
    DEFECT = 1
    BAD_INPUT = 2
    INFEASIBLE = 3
    INTERRUPTED = 130  # Ctrl-C, as shells count it
    BROKEN_PIPE = 141  # whoever read our output stopped, as shells count it


class LazyGroup(click.Group):
    """A group whose commands are imported when they are named.

    Args:
        homes: Command name -> module that holds the command as `command`.
    """

    def __init__(self, *args: Any, homes: Mapping[str, str] | None = None, **settings: Any) -> None:
        settings.setdefault("context_settings", HELP_SETTINGS)
        super().__init__(*args, **settings)
        self.homes = dict(homes or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the group's own options off the arguments; without arguments, print the help and be done."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order in which help lists them."""
        return [*self.homes, *super().list_commands(ctx)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their first sentences, whole."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, each.get_short_help_str(limit=LONGEST_SENTENCE)) for name, each in found if each]
            )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name, or None."""
        if cmd_name not in self.homes:
            return super().get_command(ctx, cmd_name)
        command: click.Command = importlib.import_module(self.homes[cmd_name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names; a name that is none gets the nearest ones."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.list_commands(ctx)
            close = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else f"commands: {', '.join(known)}"
            ctx.fail(f"no such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)


class Shell(LazyGroup):
    """The outermost group: no traceback and no second line leaves it, unless `--debug` asks."""

    def main(  # type: ignore[override]  # click overloads it by `standalone_mode`; ours takes and does the same
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run a command and exit with its status; without `standalone_mode`, return it and let errors through."""
        written = list(sys.argv[1:] if args is None else args)
        if not extra.pop("standalone_mode", True):
            return super().main(args=written, prog_name=prog_name, standalone_mode=False, **extra)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a terminal that lacks a character still gets the rest
        try:
            status = super().main(args=written, prog_name=prog_name, standalone_mode=False, **extra)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            status = _leave_pipe()
        except (Exception, click.Abort) as error:  # noqa: BLE001  # the last line of defence
            debugging = "--debug" in written
            if debugging and not isinstance(error, (click.ClickException, click.Abort)):
                traceback.print_exception(error)
            status, line = explain(error, written)
            if status is ExitStatus.DEFECT and not debugging:
                line += "; run again with --debug for the traceback, and please report it"
            click.echo(f"tokopt: {line}", err=True)
        sys.exit(int(status) if isinstance(status, int) else ExitStatus.ANSWERED)


def explain(error: BaseException, written: Sequence[str]) -> tuple[ExitStatus, str]:
    """Return the exit status of an error and the line that tells a user about it; `written` are the arguments."""
    if isinstance(error, click.Abort):
        return ExitStatus.INTERRUPTED, "interrupted"
    if isinstance(error, click.ClickException):
        return ExitStatus.BAD_INPUT, f"error: {_usage(error, written)}"
    if isinstance(error, InfeasibleError):
        return ExitStatus.INFEASIBLE, f"infeasible: {one_line(str(error))}"
    if isinstance(error, TokoptError):
        return ExitStatus.BAD_INPUT, f"error: {one_line(str(error))}"
    if isinstance(error, OSError) and error.filename is None and error.errno in NO_ROOM:
        return ExitStatus.BAD_INPUT, f"error: output cannot be written: {error.strerror}"
    return ExitStatus.DEFECT, f"internal error: {one_line(f'{type(error).__name__}: {error}').rstrip(': ')}"


def _usage(error: click.ClickException, written: Sequence[str]) -> str:
    """Return what click found wrong with the arguments, and where to read what they may be."""
    message = one_line(error.format_message()).rstrip(".")
    if isinstance(error, click.NoSuchOption):
        near = " or ".join(difflib.get_close_matches(error.option_name, sorted(error.possibilities or ()), cutoff=0.0))
        message = f"no such option {error.option_name}{f'; did you mean {near}?' if near else ''}"
    context = error.ctx if isinstance(error, click.UsageError) else None
    commands = itertools.takewhile(lambda word: not word.startswith("-"), written)
    path = context.command_path if context else " ".join(("tokopt", *commands))
    return f"{message[:1].lower()}{message[1:]} (see {path} --help)"


def one_line(text: str) -> str:
    """Return a text with its line breaks and runs of blanks made single blanks."""
    return " ".join(text.split())


def _leave_pipe() -> int:
    """Point standard output at nothing, so that the interpreter's last flush has nobody to complain about."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitStatus.BROKEN_PIPE
