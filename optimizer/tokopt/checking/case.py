"""One fleet item to be checked, and how figures are compared and faults are worded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokopt.checking.inputs import CheckInputs
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.demand import WorkloadClass, WorkloadShape
from tokopt.domain.llms import Llm
from tokopt.domain.plans import FleetItem, PlanRequest

TOLERANCE = 1e-6  # relative, of recomputed figures
LIMIT_TOLERANCE = 1e-9  # relative, by which a sum may exceed a limit through rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One item of a fleet with what it is checked against."""

    number: int
    item: FleetItem
    request: PlanRequest
    inputs: CheckInputs

    @property
    def asked(self) -> WorkloadClass:
        """The class of requests that the item serves; the request's first where it names none that there is."""
        classes = {asked.name: asked for asked in self.request.served_classes()}
        named = [classes[name] for name in self.item.share_of_traffic if name in classes]
        return named[0] if named else next(iter(classes.values()))

    @property
    def workload(self) -> WorkloadShape:
        """What the item serves: its class's requests, with the share of prompts that its caches find."""
        asked, caching = self.asked.workload, self.item.deployment.caching
        if "prefix_caching" in self.request.disabled_features:
            return asked.model_copy(update={"prefix_share": 0.0, "reuse": None})
        if asked.reuse is None or caching is None:
            return asked
        return asked.model_copy(update={"prefix_share": caching.hit_share, "reuse": None})

    @property
    def llm(self) -> Llm:
        """The model that the item's class asks for."""
        return self.inputs.llms[self.asked.llm]

    @property
    def accelerator(self) -> Accelerator | None:
        """The item's accelerator, None where the catalog does not have it."""
        return self.inputs.accelerators.get(self.item.accelerator)

    def fault(self, text: str) -> str:
        """Return a fault of this item in one line."""
        return f"fleet[{self.number}] ({self.item.accelerator}): {text}"

    def differs(self, figure: str, says: float | None, should: float | None, why: str) -> list[str]:
        """Return the fault of a figure that is not what it should be, or nothing."""
        return [self.fault(different(figure, says, should, why))] if not same(says, should) else []


def same(says: float | None, should: float | None, tolerance: float = TOLERANCE) -> bool:
    """Whether two figures agree; not known agrees with not known only, and what is no number with nothing."""
    if says is None or should is None:
        return says is should
    return math.isclose(says, should, rel_tol=tolerance, abs_tol=1e-12)


def within(value: float, limit: float, tolerance: float = LIMIT_TOLERANCE) -> bool:
    """Whether a figure is at most `limit`, rounding aside; what is no number is not."""
    return value <= limit + abs(limit) * tolerance


def number(value: float | None) -> str:
    """Return a figure as people write it: 4,752 or 1,234.568 or 0.00123457."""
    if value is None:
        return "not known"
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000.0:
        return f"{value:,.3f}".removesuffix(".000")
    return f"{value:.7g}"


def different(figure: str, says: float | None, should: float | None, why: str) -> str:
    """Return how a figure differs from what it should be: why it should be that comes last."""
    written, expected = number(says), number(should)
    if written == expected and says is not None and should is not None:
        written, expected = repr(says), repr(should)
    return f"{figure} is {written}, but should be {expected} ({why})"
