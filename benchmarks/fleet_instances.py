"""Synthetic fleet programs of the size that the design names: accelerators x configurations x request classes."""

from __future__ import annotations

import numpy as np

from tokopt.fleet import Column, FleetProblem, Goal


def synthetic(
    seed: int,
    *,
    accelerators: int = 12,
    configurations: int = 30,
    classes: int = 60,
    requests_per_s: float = 300.0,
    power_w: float | None = None,
) -> FleetProblem:
    """Return a random program: configurations of one accelerator cost the same and are good at different lengths."""
    rng = np.random.default_rng(seed)
    lengths = np.geomspace(0.25, 8.0, classes)
    mix = rng.dirichlet(np.full(classes, 2.0))
    columns = []
    for g in range(accelerators):
        price = float(rng.uniform(6.0, 60.0))
        speed = price * float(rng.uniform(0.7, 1.4))
        power = 800.0 + 220.0 * price
        for c in range(configurations):
            best_at = float(rng.choice(lengths))
            skill = np.exp(-0.5 * (np.log(lengths / best_at) / 1.2) ** 2)
            rates = speed / lengths * (0.35 + 0.65 * skill) * rng.uniform(0.8, 1.0)
            rates = np.where(lengths > best_at * 6.0, 0.0, rates)
            columns.append(
                Column(
                    name=f"{g}.{c}",
                    accelerator=f"gpu{g}",
                    offer=f"offer{g}",
                    accelerators_per_block=8,
                    replicas_per_block=1,
                    units_per_block=1,
                    usd_per_hour=price,
                    power_w=power,
                    requests_per_s=tuple(float(r) for r in rates),
                )
            )
    return FleetProblem(
        columns=tuple(columns),
        demand=tuple(float(d) for d in mix * requests_per_s),
        tokens_per_request=tuple(float(x) for x in 256.0 * lengths),
        goal=Goal.COST,
        power_w=power_w,
        gap_target=1e-4,
    )
