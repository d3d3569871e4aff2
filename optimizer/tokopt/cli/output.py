"""Where answers go: standard output as JSON or as a report, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokopt.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console, RenderableType

PIPED_COLUMNS = 100


def print_json(document: BaseModel | dict[str, Any]) -> None:
    """Print one JSON document and nothing else."""
    click.echo(json_text(document).encode("utf-8"))


def json_text(document: BaseModel | dict[str, Any]) -> str:
    """Return a document as JSON."""
    if isinstance(document, dict):
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return document.model_dump_json(indent=2)


def console() -> Console:
    """Return the console of standard output: as wide as the terminal, or of a fixed width where there is none."""
    from rich.console import Console

    # Names of models and machines must not be taken for markup, emoji or numbers to be coloured.
    out = Console(highlight=False, emoji=False, markup=False)
    if not any(os.isatty(descriptor) for descriptor in (0, 1, 2)) and "COLUMNS" not in os.environ:
        out.width = PIPED_COLUMNS
    return out


def print_report(report: RenderableType) -> None:
    """Print what a renderer made, without blanks at the ends of lines where it is piped."""
    out = console()
    if out.is_terminal:
        out.print(report)
        return
    with out.capture() as captured:
        out.print(report)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def say(line: str) -> None:
    """Tell the user something that is not the answer."""
    click.echo(line, err=True)


def require_writable(path: Path, *, option: str) -> None:
    """Refuse a file that could not be written, before any work is put into its content.

    Raises:
        InputError: It is a directory, or its directory is missing or closed to us.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise InputError(f"{option} {path}: is a directory; a file name is needed")
    if not folder.is_dir():
        raise InputError(f"{option} {path}: there is no directory {folder}")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"{option} {path}: may not be written")


def require_folder(folder: Path, first: str, *, option: str) -> None:
    """Make a folder, and refuse it where `first`, a file in it, could not be written.

    Raises:
        InputError: It cannot be made, or the file may not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {folder}: cannot be made: {error.strerror or error}") from None
    require_writable(folder / first, option=option)


def require_outputs(out: Path | None, plots: Path | None, first: str) -> None:
    """Refuse `--out` and `--plots` where they could not be written in the end; `first` is one of the pictures.

    Raises:
        InputError: A place cannot be written, or pictures cannot be made here.
    """
    if out is not None:
        require_writable(out, option="--out")
    if plots is not None:
        from tokopt.report.plots import require_plots

        require_folder(plots, first, option="--plots")
        require_plots()


def write_out(out: Path | None, document: BaseModel, what: str) -> list[str]:
    """Write a document as JSON where that was asked for, and return a line about it."""
    if out is None:
        return []
    write_whole(out, json_text(document) + "\n", option="--out")
    return [f"{what} written to {out}"]


def write_pictures(plots: Path | None, pictures: Callable[[], Iterable[tuple[str, bytes]]]) -> list[str]:
    """Write pictures where they were asked for, and return a line about each."""
    if plots is None:
        return []
    said = []
    for name, content in pictures():
        write_whole(plots / name, content, option="--plots")
        said.append(f"picture written to {plots / name}")
    return said


def answer(
    document: BaseModel,
    *,
    as_json: bool,
    quiet: bool,
    report: Callable[[], RenderableType],
    write: Callable[[], Sequence[str]],
) -> None:
    """Write what was asked for and print the answer, which is shown even where a file cannot be written.

    Args:
        document: The answer, as `--json` prints it.
        as_json: Print that instead of the report.
        quiet: Do not say what was written.
        report: Makes the report.
        write: Writes the files, and returns a line about each.

    Raises:
        InputError: A file cannot be written; raised after the answer was printed.
    """
    unwritten: InputError | None = None
    written: Sequence[str] = ()
    try:
        written = write()
    except InputError as error:
        unwritten = error
    if as_json:
        print_json(document)
    else:
        print_report(report())
    if unwritten is not None:
        raise unwritten
    for line in () if quiet else written:
        say(line)


def write_whole(path: Path, content: str | bytes, *, option: str) -> None:
    """Write a file through a temporary one next to it: a reader sees the old content or the new, never a part.

    Raises:
        InputError: It cannot be written; what was there is still there.
    """
    target, temporary = path.resolve(), None
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        if target.exists() and not target.is_file():  # a pipe or device must not be replaced by a file
            target.write_bytes(data)
            return
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
        temporary.chmod(mode)
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise InputError(f"{option} {path}: cannot be written: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
