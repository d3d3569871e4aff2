"""A catalog in which single facts are replaced: the same world with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokopt.catalog.catalog import Catalog
from tokopt.catalog.power_settings import AcceleratorTable
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.llms import Llm
from tokopt.domain.offers import PriceList


class ReplacedCatalog(Catalog):
    """A catalog with other accelerators, chances of accepted drafts, precisions of models, or prices.

    Everything else, and its version, is the base's. Its price list is handed to it: whatever lists are asked for, it
    returns that one.

    Args:
        base: The catalog to start from; what it has read is not read again.
        prices: The price list.
        accelerators: Records by name, in place of the base's.
        acceptance: Chances of draft tokens by model, in place of the calibration's.
        llms: Models by the name that they are asked for by.
    """

    def __init__(
        self,
        base: Catalog,
        *,
        prices: PriceList,
        accelerators: Mapping[str, Accelerator],
        acceptance: Mapping[str, tuple[float, ...]],
        llms: Mapping[str, Llm],
    ) -> None:
        super().__init__(base.directories)
        known = ("sources", "precisions", "kv_precisions", "frameworks", "workloads", "sites", "ownership", "version")
        self.__dict__.update({name: getattr(base, name) for name in known})
        self.__dict__["accelerators"] = (
            AcceleratorTable({**base.accelerators, **accelerators}) if accelerators else base.accelerators
        )
        calibration = base.calibration
        if acceptance:
            calibration = replace(calibration, acceptance={**calibration.acceptance, **acceptance})
        self.__dict__["calibration"] = calibration
        self._llms = dict(llms)
        self._prices = prices

    def price_list(self, *_names: Any, **_settings: Any) -> PriceList:
        """Return the price list that was handed over."""
        return self._prices

    def llm(self, name_or_path: str) -> Llm:
        """Return a model that was handed over, or the base's."""
        return self._llms.get(name_or_path) or super().llm(name_or_path)
