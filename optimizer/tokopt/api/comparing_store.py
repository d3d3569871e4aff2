"""Finished cells in one SQLite file, a row each: what a run that was interrupted goes on from.

Every answer is one transaction in the write-ahead log, written by whoever found it, so that a process may be killed at
any moment: at most the cells that it was working on are lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tokopt.domain.comparing import CellAnswer
from tokopt.errors import InputError
from tokopt.version import __version__

from .comparing_scenarios import Cell

APPLICATION = 0x746F6B6F  # "toko": what SQLite's header says whose file it is
LAYOUT = 1
BUSY_S = 30.0  # processes wait for each other's transactions, which take milliseconds
AT_ONCE = 500  # keys of one query
TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cells (
  number INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  scenario TEXT NOT NULL,
  price_list TEXT NOT NULL,
  answer TEXT NOT NULL,
  finished_at REAL NOT NULL
);
CREATE TABLE begun (key TEXT PRIMARY KEY, run TEXT NOT NULL, times INTEGER NOT NULL) WITHOUT ROWID;
"""


class Store:
    """The file. `open` is for whoever starts a run, `join` for its workers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._base = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    @classmethod
    def open(cls, path: Path, *, catalog_version: str) -> Store:
        """Return the store at a path, made if there is none.

        Raises:
            InputError: It is no store, or one of another version of tokopt or of the catalog.
        """
        said = f"--store {path}"
        if path.is_dir():
            raise InputError(f"{said}: is a directory; a file name is needed")
        if not path.resolve().parent.is_dir():
            raise InputError(f"{said}: there is no directory {path.resolve().parent}")
        made_by = {"tokopt": __version__, "catalog": catalog_version}
        store: Store | None = None
        try:
            store = cls(path)
            store._prepare(made_by, said)
        except (sqlite3.Error, InputError) as error:
            if store is not None:
                store._base.close()
            if isinstance(error, InputError):
                raise
            raise InputError(f"{said}: not a store of finished cells, or not writable: {error}") from None
        return store

    @classmethod
    def join(cls, path: Path) -> Store:
        """Return a store that is open elsewhere."""
        if not path.is_file():
            raise InputError(f"the store {path} is gone")
        store = cls(path)
        store._base.execute("PRAGMA synchronous = NORMAL")
        return store

    def _prepare(self, made_by: Mapping[str, str], said: str) -> None:
        base = self._base
        (owner,) = base.execute("PRAGMA application_id").fetchone()
        if owner != APPLICATION and base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise InputError(f"{said}: a database, but not of finished cells; name another file")
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        with _transaction(base):
            (layout,) = base.execute("PRAGMA user_version").fetchone()
            if not base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in TABLES.split(";\n"):
                    base.execute(statement)
                base.execute(f"PRAGMA application_id = {APPLICATION}")
                base.execute(f"PRAGMA user_version = {LAYOUT}")
                base.executemany("INSERT INTO meta VALUES (?, ?)", made_by.items())
                return
            if layout != LAYOUT:
                raise InputError(f"{said}: laid out by another version of tokopt; name another file")
            before = dict(base.execute("SELECT name, value FROM meta"))
            changed = [
                f"{name} {before.get(name)}, not {value}"
                for name, value in made_by.items()
                if before.get(name) != value
            ]
            if changed:
                raise InputError(
                    f"{said}: its cells were solved by {'; by '.join(changed)}: they cannot stand beside new ones; "
                    "name another file"
                )

    # --- runs ---

    def start_run(self) -> str:
        """Begin a run and return what it is called; workers of earlier runs stop at their next cell."""
        run = uuid.uuid4().hex
        with _transaction(self._base):
            self._base.execute("INSERT OR REPLACE INTO meta VALUES ('run', ?)", (run,))
            self._base.execute("DELETE FROM begun")
        return run

    def end_run(self) -> None:
        """Let workers stop at their next cell."""
        with contextlib.suppress(sqlite3.Error):
            self._base.execute("DELETE FROM meta WHERE name = 'run'")

    def begin(self, cell: Cell, run: str) -> bool:
        """Note that a cell is being solved; False where the run has ended."""
        with _transaction(self._base):
            current = self._base.execute("SELECT value FROM meta WHERE name = 'run'").fetchone()
            if current is None or current[0] != run:
                return False
            self._base.execute(
                "INSERT INTO begun VALUES (?, ?, 1) ON CONFLICT (key) DO UPDATE SET times = times + 1", (cell.key, run)
            )
        return True

    def begun(self, key: str) -> int:
        """Return how often a cell was begun in this run."""
        row = self._base.execute("SELECT times FROM begun WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else 0

    # --- cells ---

    def add(self, answers: Iterable[tuple[Cell, CellAnswer]]) -> int:
        """Keep answers, and return of how many; one that is there already stays.

        What failed by a defect is not kept: a rerun tries again.
        """
        rows = [
            (cell.key, cell.scenario, cell.price_list, answer.model_dump_json(), time.time())
            for cell, answer in answers
            if not answer.defect
        ]
        with _transaction(self._base):
            self._base.executemany(
                "INSERT OR IGNORE INTO cells (key, scenario, price_list, answer, finished_at) VALUES (?, ?, ?, ?, ?)",
                rows,
            )
        return len(rows)

    def finished(self, cells: Sequence[Cell]) -> dict[str, CellAnswer]:
        """Return the answers that are kept, by key, under the names that the cells have now."""
        found: dict[str, CellAnswer] = {}
        named = {cell.key: cell for cell in cells}
        for keys in _batches(named):
            marks = ",".join("?" * len(keys))
            for key, answer in self._base.execute(f"SELECT key, answer FROM cells WHERE key IN ({marks})", keys):
                names = {"scenario": named[key].scenario, "price_list": named[key].price_list}
                found[key] = CellAnswer.model_validate_json(answer).model_copy(update=names)
        return found

    def missing(self, cells: Sequence[Cell]) -> set[str]:
        """Return the keys of cells without an answer."""
        keys = {cell.key for cell in cells}
        for some in _batches({cell.key: cell for cell in cells}):
            marks = ",".join("?" * len(some))
            keys -= {key for (key,) in self._base.execute(f"SELECT key FROM cells WHERE key IN ({marks})", some)}
        return keys

    def count(self) -> int:
        """Return how many cells are kept, of this comparison or another."""
        return int(self._base.execute("SELECT count(*) FROM cells").fetchone()[0])

    def others(self, cells: Sequence[Cell]) -> tuple[int, int]:
        """Return how many kept cells are of other questions: in all, and under names that are asked for again."""
        kept = self.count()
        asked = len(cells) - len(self.missing(cells))
        names = {(cell.scenario, cell.price_list): cell.key for cell in cells}
        again = sum(
            1
            for key, scenario, price_list in self._base.execute("SELECT key, scenario, price_list FROM cells")
            if names.get((scenario, price_list), key) != key
        )
        return kept - asked, again


def _batches(named: Mapping[str, Cell]) -> Iterator[list[str]]:
    keys = list(named)
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))


@contextlib.contextmanager
def _transaction(base: sqlite3.Connection) -> Iterator[None]:
    base.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        base.execute("ROLLBACK")
        raise
    base.execute("COMMIT")
