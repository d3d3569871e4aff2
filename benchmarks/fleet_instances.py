"""Synthetic fleet programs of the size that the design names: accelerators x configurations x request classes."""

from __future__ import annotations

import numpy as np

from tokopt.fleet import Column, FleetProblem, Goal, Period


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


def market(
    seed: int,
    *,
    providers: int = 50,
    regions: int = 20,
    accelerators: int = 15,
    setups: int = 4,
    classes: int = 20,
    periods: int = 24,
    requests_per_s: float = 20_000.0,
    limits: dict[str, object] | None = None,
) -> FleetProblem:
    """Return a random program of a whole market over a day.

    Every provider sells every accelerator in every region on demand; half of these also as spot, half reserved; a few
    sites own some. Prices differ by provider and region, those of spot also by hour; a third of the offers, and all
    spot and owned ones, have a limited stock. Demand has the shape of a day, with its peak at another hour for each
    class.
    """
    rng = np.random.default_rng(seed)
    lengths = np.geomspace(0.25, 8.0, classes)
    dear, near = rng.uniform(0.85, 1.35, providers), rng.uniform(0.92, 1.15, regions)
    hours = np.arange(periods)
    cheap_at_night = 1.0 + 0.15 * np.sin((hours - 9.0) / 24.0 * 2.0 * np.pi)
    columns: list[Column] = []
    stock: dict[str, int] = {}
    for g in range(accelerators):
        list_price = float(rng.uniform(6.0, 60.0))
        power = 800.0 + 220.0 * list_price
        menu = _menu(rng, lengths, list_price * float(rng.uniform(0.7, 1.4)), setups)
        for p in range(providers):
            for r in range(regions):
                price = list_price * float(dear[p] * near[r] * rng.uniform(0.95, 1.05))
                limited, spot, reserved = rng.random(3) < (0.33, 0.5, 0.5)
                sold = [("on_demand", price, limited)]
                sold += [("spot", price * float(rng.uniform(0.35, 0.7)), True)] if spot else []
                sold += [("reserved", price * float(rng.uniform(0.5, 0.75)), limited)] if reserved else []
                sold += [("owned", price * float(rng.uniform(0.4, 0.6)), True)] if p == 0 and r < 3 else []
                for kind, usd, scarce in sold:
                    offer = f"p{p}|r{r}|gpu{g}|{kind}"
                    if scarce:
                        stock[offer] = int(rng.integers(2, 40))
                    by_hour = tuple((usd * cheap_at_night).tolist()) if kind == "spot" else ()
                    for c, rates in enumerate(menu):
                        columns.append(
                            Column(
                                name=f"{offer}|{c}",
                                accelerator=f"gpu{g}",
                                offer=offer,
                                accelerators_per_block=8,
                                replicas_per_block=1,
                                units_per_block=1,
                                usd_per_hour=usd,
                                power_w=power,
                                requests_per_s=rates,
                                provider=f"p{p}",
                                region=f"r{r}",
                                zone=f"p{p}|r{r}",
                                spot=kind == "spot",
                                flexible=kind in ("on_demand", "spot"),
                                usd_per_hour_by_period=by_hour,
                            )
                        )
    mix, peak = rng.dirichlet(np.full(classes, 2.0)), rng.uniform(10.0, 18.0, classes)
    shape = 1.0 + 0.45 * np.sin((hours[:, None] - peak[None, :] + 6.0) / 24.0 * 2.0 * np.pi)
    demand = mix * requests_per_s
    return FleetProblem(
        columns=tuple(columns),
        demand=tuple(demand.tolist()),
        tokens_per_request=tuple((256.0 * lengths).tolist()),
        goal=Goal.COST,
        periods=tuple(Period(name=f"{h:02d}:00") for h in hours.tolist()),
        demand_by_period=tuple(tuple(row) for row in (demand * shape).tolist()),
        offer_units=stock,
        gap_target=1e-3,
        **{"most_spot_share": 0.3, "spot_reserve": 0.1, **(limits or {})},  # type: ignore[arg-type]
    )


def _menu(rng: np.random.Generator, lengths: np.ndarray, speed: float, setups: int) -> list[tuple[float, ...]]:
    """Return the rates of an accelerator's set-ups, each of which is good at other lengths."""
    menu = []
    for best_at in np.geomspace(lengths[0], lengths[-1], setups):
        skill = np.exp(-0.5 * (np.log(lengths / best_at) / 1.2) ** 2)
        rates = speed / lengths * (0.35 + 0.65 * skill) * rng.uniform(0.8, 1.0)
        menu.append(tuple(np.where(lengths > best_at * 6.0, 0.0, rates).tolist()))
    return menu
