"""Solving cells, in whatever process or machine: what a worker is handed, and what it hands back."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.comparing import CellAnswer, CellStatus
from tokopt.domain.llms import Llm
from tokopt.domain.offers import PriceList
from tokopt.domain.plans import NearestFeasible, Plan
from tokopt.errors import InputError, TokoptError
from tokopt.search import SharedSearch

from .comparing_scenarios import Cell, PriceGroup, search_signature
from .comparing_store import Store
from .planning import solve_request

FIGURES = (
    "gap",
    "usd_per_million_output_tokens",
    "usd_per_million_total_tokens",
    "usd_per_hour",
    "output_tokens_per_s",
    "total_tokens_per_s",
    "power_kw",
    "tokens_per_s_per_mw",
)
OF_WINNER = ("accelerator", "provider", "region", "market", "instance_type", "framework", "precision", "mode")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedPrices:
    """A price list as a worker is handed it: it may run where the files are not."""

    names: tuple[str, ...]
    content: str
    pickled: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Cells that share a search, with all that solving them takes.

    Attributes:
        overlays: Directories laid over the embedded catalog.
        catalog_version: What the worker's catalog must be.
        store: File that answers are written to as they are found; None where the worker does not share our disk.
        run: The run that the store must still be in; a worker whose run has ended stops.
    """

    cells: tuple[Cell, ...]
    prices: tuple[PackedPrices, ...]
    overlays: tuple[str, ...]
    catalog_version: str
    store: str | None = None
    run: str = ""


Answers = list[tuple[str, CellAnswer]]


def tasks_of(
    catalog: Catalog,
    cells: Sequence[Cell],
    groups: Sequence[PriceGroup],
    *,
    largest: int,
    store: Path | None = None,
    run: str = "",
) -> list[Task]:
    """Return the cells as tasks of at most `largest` cells, those with the same search together."""
    packed = {
        group.request_names: PackedPrices(
            names=group.request_names,
            content=group.content,
            pickled=pickle.dumps(_slim(group.prices), protocol=pickle.HIGHEST_PROTOCOL),
        )
        for group in groups
    }
    by_search: dict[str, list[Cell]] = {}
    for cell in cells:
        by_search.setdefault(search_signature(cell.request), []).append(cell)
    tasks = [
        Task(
            cells=tuple(part),
            prices=tuple(packed[names] for names in dict.fromkeys(cell.request.prices for cell in part)),
            overlays=tuple(str(folder.resolve()) for folder in catalog.directories[1:]),
            catalog_version=catalog.version,
            store=None if store is None else str(store),
            run=run,
        )
        for alike in by_search.values()
        for part in _parts(alike, largest)
    ]
    return sorted(tasks, key=lambda task: -len(task.cells))  # the long ones first: none is left over at the end


def _slim(prices: PriceList) -> PriceList:
    """Return a list without the rows that were turned down, of which no figure depends."""
    return PriceList(name=prices.name, offers=prices.offers, as_of=prices.as_of)


def _parts(cells: Sequence[Cell], largest: int) -> Iterator[Sequence[Cell]]:
    count = -(-len(cells) // largest)
    size = -(-len(cells) // count)
    return (cells[start : start + size] for start in range(0, len(cells), size))


class DeskCatalog(Catalog):
    """A catalog that has its price lists handed to it, and keeps language models."""

    def __init__(self, directories: Sequence[Path]) -> None:
        super().__init__(directories)
        self.handed: dict[tuple[str, ...], PriceList] = {}
        self._models: dict[str, Llm] = {}

    def price_list(self, names: Sequence[str], *_more: Any, **_settings: Any) -> PriceList:
        """Return a price list that was handed over, without reading it again."""
        return self.handed[tuple(names)]

    def llm(self, name_or_path: str) -> Llm:
        """Return a language model, read once."""
        if name_or_path not in self._models:
            self._models[name_or_path] = super().llm(name_or_path)
        return self._models[name_or_path]


class _Desk(threading.local):
    """What a thread keeps from one task to the next: a catalog, price lists, searches."""

    def __init__(self) -> None:
        self.told: tuple[Any, ...] = ()
        self.catalog: DeskCatalog | None = None
        self.contents: dict[tuple[str, ...], str] = {}
        self.search = SharedSearch()

    def ready(self, task: Task) -> tuple[DeskCatalog, SharedSearch]:
        """Return catalog and search for a task.

        Raises:
            InputError: The worker's catalog is another one.
        """
        told = task.overlays, task.catalog_version
        if self.catalog is None or told != self.told:
            directories = [*load_catalog().directories, *map(Path, task.overlays)]
            catalog = DeskCatalog(directories)
            if catalog.version != task.catalog_version:
                raise InputError(
                    f"a worker has catalog {catalog.version} where {task.catalog_version} is compared: "
                    "workers need the same tokopt and the same --catalog directory"
                )
            self.catalog, self.told, self.search, self.contents = catalog, told, SharedSearch(), {}
        for packed in task.prices:
            if self.contents.get(packed.names) != packed.content:
                self.catalog.handed[packed.names] = pickle.loads(packed.pickled)
                self.contents[packed.names] = packed.content
        return self.catalog, self.search


_DESK = _Desk()


def solve_task(task: Task) -> Answers:
    """Solve the cells of a task; answers go to the store as they are found, and what it does not keep is returned.

    Raises:
        InputError: The worker's catalog is another one, or the store cannot be written.
    """
    if task.store is None:
        return list(solutions(task))
    left: Answers = []
    with Store.join(Path(task.store)) as store:
        wanted = store.missing(task.cells)
        for cell in task.cells:
            if cell.key not in wanted:
                continue
            if not store.begin(cell, task.run):
                break  # the run has ended: whoever gave the task is gone
            for key, answer in solutions(task, [cell]):
                if not store.add([(cell, answer)]):
                    left.append((key, answer))
    return left


def solutions(task: Task, cells: Iterable[Cell] | None = None) -> Iterator[tuple[str, CellAnswer]]:
    """Yield key and answer of a task's cells, one after the other."""
    catalog, search = _DESK.ready(task)
    for cell in task.cells if cells is None else cells:
        yield cell.key, solve_cell(cell, catalog, search)


def solve_cell(cell: Cell, catalog: Catalog, search: SharedSearch) -> CellAnswer:
    """Return the answer of one cell; whatever goes wrong in it is its answer."""
    try:
        return answer_of(cell, solve_request(cell.request, catalog, search=search, extras=False))
    except TokoptError as error:
        return failed(cell, " ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - a defect in one cell must not cost the others
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return failed(cell, f"internal error: {said[:300]}", defect=True)


def failed(cell: Cell, why: str, *, defect: bool = False) -> CellAnswer:
    """Return the answer of a cell that has none."""
    return CellAnswer(
        scenario=cell.scenario,
        price_list=cell.price_list,
        status=CellStatus.ERROR,
        model=Path(cell.request.llm).name,
        workload=cell.request.workload.name,
        error=why,
        defect=defect,
    )


def answer_of(cell: Cell, plan: Plan) -> CellAnswer:
    """Return what a comparison keeps of a plan."""
    figures = {name: getattr(plan, name) for name in FIGURES}
    known = plan.interval.get("usd_per_million_output_tokens")
    if known is not None:
        figures["usd_per_million_output_tokens_low"] = known.low
        figures["usd_per_million_output_tokens_high"] = known.high
    if plan.fleet:
        most = max(plan.fleet, key=lambda item: item.output_tokens_per_s)
        figures |= {name: str(getattr(most, name)) for name in OF_WINNER}
        figures |= {"gpus": sum(item.gpus for item in plan.fleet), "kinds": len(plan.fleet)}
    return CellAnswer(
        scenario=cell.scenario,
        price_list=cell.price_list,
        status=CellStatus(plan.status.value),
        model=Path(cell.request.llm).name,
        workload=cell.request.workload.name,
        reason="; ".join(map(_standing_in_the_way, plan.nearest_feasible)),
        **figures,
    )


def _standing_in_the_way(nearest: NearestFeasible) -> str:
    return f"{nearest.constraint}: {nearest.requested} asked, nearest {nearest.nearest}"
