"""A catalog in which single facts are replaced: the same world with one thing changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tokopt.catalog.catalog import Catalog
from tokopt.catalog.power_settings import AcceleratorTable
from tokopt.domain.accelerators import Accelerator, Framework
from tokopt.domain.features import Feature
from tokopt.domain.llms import Llm
from tokopt.domain.offers import PriceList

# Of the base: read once, whatever number of catalogs is made of it.
_SHARED = (
    "sources",
    "accelerators",
    "precisions",
    "kv_precisions",
    "expert_traffic",
    "frameworks",
    "workloads",
    "sites",
    "ownership",
    "calibration",
    "version",
)


class ReplacedCatalog(Catalog):
    """A catalog with other accelerators, frameworks, chances of accepted drafts, precisions of models, or prices.

    Everything else, and its version, is the base's; what the base has read is not read again.

    Args:
        base: The catalog to start from.
        prices: A price list that is returned whatever lists are asked for; None = the base's.
        accelerators: Records by name, in place of the base's.
        frameworks: The same of frameworks.
        acceptance: Chances of draft tokens by model, in place of the calibration's.
        llms: Models by the name that they are asked for by.
    """

    def __init__(
        self,
        base: Catalog,
        *,
        prices: PriceList | None = None,
        accelerators: Mapping[str, Accelerator] | None = None,
        frameworks: Mapping[str, Framework] | None = None,
        acceptance: Mapping[str, tuple[float, ...]] | None = None,
        llms: Mapping[str, Llm] | None = None,
    ) -> None:
        super().__init__(base.directories)
        for name in _SHARED:
            getattr(base, name)
        self.__dict__.update(base.__dict__)
        if accelerators:
            self.__dict__["accelerators"] = AcceleratorTable({**base.accelerators, **accelerators})
        if frameworks:
            self.__dict__["frameworks"] = {**base.frameworks, **frameworks}
        if acceptance:
            calibration = base.calibration
            self.__dict__["calibration"] = replace(calibration, acceptance={**calibration.acceptance, **acceptance})
        self._llms = dict(llms or {})
        self._prices = prices

    def price_list(self, *names: Any, **settings: Any) -> PriceList:
        """Return the price list that was handed over, or the base's."""
        return super().price_list(*names, **settings) if self._prices is None else self._prices

    def llm(self, name_or_path: str) -> Llm:
        """Return a model that was handed over, or the base's."""
        return self._llms.get(name_or_path) or super().llm(name_or_path)


def granted(base: Catalog, hardware: str, features: Iterable[Feature]) -> Catalog:
    """Return a catalog whose frameworks support more on an accelerator than they do: what would it be worth?"""
    more = tuple(features)
    frameworks = {
        name: replace(
            framework,
            support={
                **framework.support,
                hardware: replace(
                    support,
                    features=tuple(dict.fromkeys((*support.features, *more))),
                    feature_limits={name: limit for name, limit in support.feature_limits.items() if name not in more},
                ),
            },
        )
        for name, framework in base.frameworks.items()
        if (support := framework.support.get(hardware)) is not None
    }
    return ReplacedCatalog(base, frameworks=frameworks)
