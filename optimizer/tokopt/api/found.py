"""Everything between a request and its answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokopt.catalog import Catalog
from tokopt.domain.demand import WorkloadClass
from tokopt.domain.llms import Llm
from tokopt.domain.offers import PriceList
from tokopt.domain.plans import FleetItem, PlanRequest
from tokopt.domain.workloads import Workload
from tokopt.search import MixedReport, SearchReport, SearchSpace

from .columns import PricedCandidate
from .power import Counting


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one class of requests asks for, resolved, and where a search found that it could run."""

    llm: Llm
    workload: Workload
    space: SearchSpace
    reports: dict[str, SearchReport]  # by accelerator


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A request, what was loaded and searched for it, and the columns that came of it.

    `services` are in the order of the request's classes; a column serves one of them.
    """

    request: PlanRequest
    catalog: Catalog
    prices: PriceList
    services: tuple[Service, ...]
    excluded: dict[str, str]
    columns: list[PricedCandidate]
    counting: Counting = field(default_factory=Counting)
    mixed: MixedReport = field(default_factory=MixedReport)  # what was looked at of pools on different accelerators

    @property
    def classes(self) -> tuple[WorkloadClass, ...]:
        """The request's classes."""
        return self.request.served_classes()

    @property
    def reports(self) -> dict[str, SearchReport]:
        """What was searched for the first class."""
        return self.services[0].reports

    @property
    def llm(self) -> Llm:
        """The model of the first class."""
        return self.services[0].llm

    @property
    def workload(self) -> Workload:
        """The lengths of the first class."""
        return self.services[0].workload

    def service_of(self, item: FleetItem) -> int:
        """Return the number of the class that an item serves."""
        served = next(iter(item.share_of_traffic))
        return next(number for number, asked in enumerate(self.classes) if asked.name == served)

    def row_of(self, item: FleetItem) -> PricedCandidate:
        """Return the column that an item was made of."""
        return next(
            row
            for row in self.columns
            if row.candidate.deployment == item.deployment
            and row.offer.instance_type == item.instance_type
            and self.classes[row.service].name in item.share_of_traffic
        )
