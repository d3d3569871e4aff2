"""How unlike the experts of a model are asked for."""

from __future__ import annotations

from dataclasses import dataclass

UNIFORM = "benchmark"  # traffic that constants were fitted to, and the default


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTraffic:
    """Popularity of experts in some traffic, by the load of the fullest accelerator where nothing balances them."""

    name: str
    title: str
    aliases: tuple[str, ...]
    kind: str  # published or assumed
    experts: int | None  # of a layer; this and the next two: None = all experts are asked for alike
    expert_parallel: int | None  # accelerators that they are spread over
    fullest: float | None  # load of the fullest of these over the mean
    source: str
    observed_on: str
    note: str = ""
