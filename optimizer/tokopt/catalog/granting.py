"""A catalog in which frameworks support more on an accelerator than they do: what would it be worth?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tokopt.catalog.catalog import Catalog
from tokopt.domain.accelerators import Framework
from tokopt.domain.features import Feature

_SHARED = ("sources", "accelerators", "precisions", "kv_precisions", "workloads", "sites", "ownership", "calibration")


class GrantedCatalog(Catalog):
    """A catalog like another one, with features granted on one accelerator; everything else is the base's."""

    def __init__(self, base: Catalog, hardware: str, features: Iterable[Feature]) -> None:
        super().__init__(base.directories)
        self.__dict__.update({name: getattr(base, name) for name in (*_SHARED, "version")})
        granted = tuple(features)
        self.__dict__["frameworks"] = {
            name: _granted(framework, hardware, granted) for name, framework in base.frameworks.items()
        }


def _granted(framework: Framework, hardware: str, features: tuple[Feature, ...]) -> Framework:
    support = framework.support.get(hardware)
    if support is None:
        return framework
    more = replace(support, features=tuple(dict.fromkeys((*support.features, *features))))
    return replace(framework, support={**framework.support, hardware: more})
