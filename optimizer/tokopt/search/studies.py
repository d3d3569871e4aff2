"""Studies: where trials are kept, whose they are, and which processes work on them."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokopt.domain.tuning import Sampler
from tokopt.errors import InputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.storages.journal import JournalFileSymlinkLock
    from optuna.trial import FrozenTrial

Direction = Literal["minimize", "maximize"]

IDENTITY = "tokopt:identity"
WORKER = "tokopt:worker:"
ALIVE = "alive"  # of a trial: worker, host, process and time of its last sign of life
DIGEST = "#"  # what an identity's part starts with that tells nothing to people
CONSTRAINTS = "constraints"  # of a trial, where Optuna does not keep them itself
VOID = "void"  # of a trial that does not count, and why
ATTEMPTS = 4  # to open a database
LOCKED_S = 10  # that a journal may be locked by one process, before its lock is broken
STALE_S = 900.0  # without a sign of life, after which a trial on another host is given up
FAMILIAR = {"postgresql": "psycopg2-binary", "postgres": "psycopg2-binary", "mysql": "mysqlclient"}
POPULATION = 16  # of the genetic algorithm: trials are few


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlace:
    """Where a study is: a journal file, a database by URL, or nowhere but in memory."""

    path: Path | None = None
    url: str = ""
    name: str = "tokopt"

    def __str__(self) -> str:
        """Return what may be shown: without a password."""
        return hidden(self.url) if self.url else str(self.path) if self.path else "memory"

    @property
    def shared(self) -> bool:
        """Whether other processes can take part."""
        return bool(self.url or self.path)


def study_place(written: str, name: str = "tokopt") -> StudyPlace:
    """Return the place that a file name or URL means."""
    if "://" in written:
        return StudyPlace(url=written, name=name)
    return StudyPlace(path=Path(written), name=name)


def hidden(url: str) -> str:
    """Return a URL without its password."""
    scheme, _, rest = url.partition("://")
    who, at, where = rest.rpartition("@")
    user, colon, _ = who.partition(":")
    return f"{scheme}://{user}{':***' if colon else ''}{at}{where}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's own messages and its warnings of experimental features to itself."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def opened(place: StudyPlace, directions: Sequence[Direction], identity: Mapping[str, str]) -> Study:
    """Return the study at a place, made if there is none.

    Args:
        place: Where it is.
        directions: One a goal.
        identity: What its trials are of, part by part.

    Raises:
        InputError: It cannot be opened, or its trials are of something else.
    """
    for attempt in range(ATTEMPTS):
        try:
            study = _created(place, directions)
            if IDENTITY not in study.user_attrs:
                study.set_user_attr(IDENTITY, dict(identity))
            known = study.user_attrs[IDENTITY]
            break
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  # of whatever database there is behind it
            # Two that make the tables of a database at the same time get into each other's way, once.
            if attempt + 1 == ATTEMPTS:
                raise InputError(f"--study {place}: cannot be used: {_in_words(error)}") from None
            time.sleep(0.2 * (1 + attempt) * (1.0 + os.getpid() % 7 / 7.0))
    other = [part for part, value in identity.items() if known.get(part) != value]
    if other:
        said = ", ".join(_difference(part, known.get(part), identity[part]) for part in other)
        raise InputError(f"--study {place}: its trials are of another {said}; give another file or --study-name")
    return study


def _created(place: StudyPlace, directions: Sequence[Direction]) -> Study:
    import optuna

    return optuna.create_study(
        storage=_storage(place), study_name=place.name, directions=list(directions), load_if_exists=True
    )


def _difference(part: str, there: str | None, here: str) -> str:
    return part if there is None or here.startswith(DIGEST) else f"{part} ({there}; asked for: {here})"


def _storage(place: StudyPlace) -> BaseStorage | None:
    if place.url:
        return _database(place)
    if place.path is None:
        return None
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder = place.path.resolve().parent
    if place.path.is_dir():
        raise InputError(f"--study {place}: is a directory; a file name or a database URL is needed")
    if not folder.is_dir():
        raise InputError(f"--study {place}: there is no directory {folder}")
    if not os.access(folder, os.W_OK) or (place.path.exists() and not os.access(place.path, os.W_OK)):
        raise InputError(f"--study {place}: may not be written")
    try:
        return JournalStorage(JournalFileBackend(str(place.path), lock_obj=_lock(place.path)))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise InputError(f"--study {place}: is not the journal of a study; give a file of its own") from None


def _lock(path: Path) -> JournalFileSymlinkLock | None:
    """Return a lock that a process which was killed holds for some seconds only; None where Optuna has none such."""
    from optuna.storages.journal import JournalFileSymlinkLock

    with contextlib.suppress(TypeError):
        return JournalFileSymlinkLock(str(path), grace_period=LOCKED_S)
    return None


def _database(place: StudyPlace) -> BaseStorage:
    from optuna.storages import RDBStorage

    kind = place.url.partition(":")[0].partition("+")[0]
    try:
        return RDBStorage(place.url)
    except ImportError as error:
        driver = getattr(error.__cause__ or error, "name", None) or "its module"
        package = FAMILIAR.get(kind, driver)
        raise InputError(
            f"--study {place}: no driver for {kind} ({driver}) is installed: pip install {package}"
        ) from None
    except ValueError as error:
        raise InputError(f"--study {place}: not a database URL: {_in_words(error)}") from None


def _in_words(error: BaseException) -> str:
    """Return the first line of what went wrong deep inside, without what a database driver adds."""
    inner = getattr(error, "orig", None) or error
    lines = str(inner).strip().splitlines() or [type(inner).__name__]
    return hidden_anywhere(lines[0].strip())


def hidden_anywhere(text: str) -> str:
    """Return a text without passwords of URLs in it."""
    return " ".join(hidden(word) if "://" in word else word for word in text.split())


# --- samplers ---


def sampler_of(kind: Sampler, seed: int) -> BaseSampler:
    """Return what proposes settings, with random numbers of its own."""
    from optuna import samplers

    constraints = {} if has_constraints() else {"constraints_func": lambda trial: trial.user_attrs[CONSTRAINTS]}
    if kind is Sampler.RANDOM:
        return samplers.RandomSampler(seed=seed)
    if kind is Sampler.NSGA2:
        return samplers.NSGAIISampler(seed=seed, population_size=POPULATION, **constraints)  # type: ignore[arg-type]
    return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, **constraints)  # type: ignore[arg-type]


def has_constraints() -> bool:
    """Whether trials state their constraints themselves, as from Optuna 5 on."""
    from optuna.trial import Trial

    return hasattr(Trial, "set_constraint")


# --- processes ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that works on a study, as it signed in."""

    key: str
    seed: tuple[int, ...]
    host: str
    process: int
    began: float


def sign_in(study: Study, seed: int, child: int = 0) -> Worker:
    """Write down that this process works on a study, with the seed of its random numbers.

    The first is given the same seed every time, so is the second after it has ended, and so on. Who comes while another
    is at it has a seed that nobody else has.
    """
    own, now = uuid.uuid4(), time.time()
    host, process = socket.gethostname(), os.getpid()
    before = len(_workers(study))
    known = {"host": host, "process": process, "began": now, "seed": [seed, before, child]}
    key = f"{WORKER}{own.hex}"
    study.set_user_attr(key, known)
    others = [each for name, each in _workers(study).items() if name != key]
    if any(not each.get("ended") and _lives(each["host"], each["process"], each["began"]) for each in others):
        known["seed"] = [seed, before, child, own.int & 0xFFFFFFFF]
        study.set_user_attr(key, known)
    return Worker(key=own.hex, seed=tuple(known["seed"]), host=host, process=process, began=now)  # type: ignore[arg-type]


def sign_out(study: Study, worker: Worker) -> None:
    """Write down that a process has ended its work on a study."""
    name = f"{WORKER}{worker.key}"
    study.set_user_attr(name, {**_workers(study)[name], "ended": time.time()})


def workers_of(study: Study) -> list[Worker]:
    """Return all processes that have worked on a study, the first to come first."""
    found = [
        Worker(
            key=name.removeprefix(WORKER),
            seed=tuple(each["seed"]),
            host=each["host"],
            process=each["process"],
            began=each["began"],
        )
        for name, each in _workers(study).items()
    ]
    return sorted(found, key=lambda worker: (worker.began, worker.seed))


def _workers(study: Study) -> dict[str, dict[str, Any]]:
    return {name: each for name, each in study.user_attrs.items() if name.startswith(WORKER)}


def alive_now(worker: str) -> list[Any]:
    """Return a sign of life of a worker."""
    return [worker, socket.gethostname(), os.getpid(), time.time()]


def abandoned(trial: FrozenTrial) -> bool:
    """Whether the process that a running trial was begun by is gone."""
    sign = trial.user_attrs.get(ALIVE)
    if sign is None:  # begun this very moment, or by a process that was killed in that moment
        began = trial.datetime_start
        return began is not None and time.time() - began.timestamp() > STALE_S
    return not _lives(*sign[1:])


def _lives(host: str, process: int, seen: float) -> bool:
    if host != socket.gethostname():
        return time.time() - seen < STALE_S
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
