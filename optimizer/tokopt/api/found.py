"""Everything between a request and its answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokopt.catalog import Catalog
from tokopt.domain.llms import Llm
from tokopt.domain.offers import PriceList
from tokopt.domain.plans import PlanRequest
from tokopt.domain.workloads import Workload
from tokopt.search import SearchReport, SearchSpace

from .columns import PricedCandidate
from .power import Counting


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A request, what was loaded and searched for it, and the columns that came of it."""

    request: PlanRequest
    catalog: Catalog
    llm: Llm
    workload: Workload
    space: SearchSpace
    prices: PriceList
    reports: dict[str, SearchReport]
    excluded: dict[str, str]
    columns: list[PricedCandidate]
    counting: Counting = field(default_factory=Counting)
