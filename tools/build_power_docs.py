"""Write what docs/power.md says in numbers: power settings, how far they are from what was published, and an example.

    python tools/build_power_docs.py            # rewrite the blocks
    python tools/build_power_docs.py --check    # say which blocks are out of date

A block stands between `<!-- power: NAME -->` and `<!-- end -->`; what stands around it is written by hand.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import tokopt
from tokopt.api.setting_facts import base_constants, board_draw_w
from tokopt.catalog import Catalog, load_catalog
from tokopt.catalog.power_settings import AcceleratorTable
from tokopt.domain.accelerators import Accelerator
from tokopt.perf.power import board_watts

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "power.md"
BLOCK = re.compile(r"(?P<open><!-- power: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<close><!-- end -->)", re.DOTALL)
CAPPED, RATED = "h100_sxm_powercap", "h100_sxm"  # the two kinds of machine in Splitwise's table
MAXQ = (6.153, 3157.8, 3912.8)  # kW of eight H200 at 500 W; tok/s an accelerator, with and without (MLPerf v4.1)
SECONDARY = (0.05, 0.08)  # what a cap of 600 W costs an H100 on inference


def with_exponent(catalog: Catalog, exponent: float) -> Catalog:
    """Return the catalog with another exponent in every power curve."""
    changed = Catalog(catalog.directories)
    changed.__dict__["accelerators"] = AcceleratorTable(
        {
            name: record
            if record.power_curve is None
            else replace(record, power_curve=replace(record.power_curve, exponent=exponent))
            for name, record in catalog.accelerators.items()
        }
    )
    return changed


def speeds(catalog: Catalog) -> list[tuple[float, float]]:
    """Return (published, predicted) speed under a cap over that without, of each source."""
    prompts, _, _ = splitwise_ratios(catalog)
    output = {name: offline(catalog, name)[0] for name in ("h200_sxm", "h200_sxm@500w")}
    output |= {name: offline(catalog, name, tp=2)[0] for name in (RATED, f"{RATED}@600w")}
    return [
        (1.0 / 1.3, 1.0 / prompts),
        (1.0 - sum(SECONDARY) / 2, output[f"{RATED}@600w"] / output[RATED]),
        (MAXQ[1] / MAXQ[2], output["h200_sxm@500w"] / output["h200_sxm"]),
    ]


def fitted_exponent(catalog: Catalog) -> float:
    """Return the exponent whose speeds fit best what was published: least squares of their logarithms."""
    from scipy.optimize import minimize_scalar

    def error(exponent: float) -> float:
        return sum(math.log(said / found) ** 2 for said, found in speeds(with_exponent(catalog, exponent)))

    return float(minimize_scalar(error, bounds=(1.2, 3.5), method="bounded", options={"xatol": 0.02}).x)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def settings_block(catalog: Catalog) -> str:
    """Return the table of all listed settings."""
    rows = []
    for name in catalog.accelerators:
        variants = catalog.accelerators.listed_variants(name)
        rows += [_setting_row(catalog, each) for each in ((catalog.accelerators[name], *variants) if variants else ())]
    header = ("name", "prefill", "board, prefill", "board, decode", "server", "all-in", "speed is")
    return table(header, rows)


def _setting_row(catalog: Catalog, each: Accelerator) -> list[str]:
    constants, watts = base_constants(catalog.calibration), board_watts(each)
    throttle = each.throttle
    return [
        f"`{each.name}`",
        "1" if throttle is None else f"{throttle.clock_share:.3f}",
        f"{board_draw_w(watts, constants, 1.0):,.0f} W",
        f"{board_draw_w(watts, constants, 0.0):,.0f} W",
        "-" if each.server_w is None else f"{each.server_w:,.0f} W",
        "-" if each.all_in_w is None else f"{each.all_in_w:,.0f} W",
        "" if throttle is None else throttle.setting.basis.value,
    ]


def measured_block(catalog: Catalog) -> str:
    """Return predicted against published figures under settings, from runs of the model."""
    prompts, tokens, count = splitwise_ratios(catalog)
    capped, plain = catalog.accelerator(f"{RATED}@350w"), catalog.accelerator(RATED)
    stated = catalog.accelerator(CAPPED)
    assert capped.server_w and plain.server_w and stated.server_w
    rows = [
        (f"time to first token, 350 over 700 W, {count} rows", "1.300", f"{prompts:.3f}", "Splitwise"),
        (f"time per output token, 350 over 700 W, {count} rows", "1.000", f"{tokens:.3f}", "Splitwise"),
        (
            "power of the server, 350 over 700 W",
            f"{stated.server_w / plain.server_w:.3f}",
            f"{capped.server_w / plain.server_w:.3f}",
            "Splitwise",
        ),
    ]
    fast, slow = (offline(catalog, name) for name in ("h200_sxm", "h200_sxm@500w"))
    rows.append(("output, 500 over 700 W", f"{MAXQ[1] / MAXQ[2]:.3f}", f"{slow[0] / fast[0]:.3f}", "MLPerf v4.1"))
    rows.append(("wall power of eight at 500 W", f"{MAXQ[0]:.2f} kW", f"{slow[1]:.2f} kW", "MLPerf v4.1"))
    less = offline(catalog, f"{RATED}@600w", tp=2)[0] / offline(catalog, RATED, tp=2)[0]
    rows.append(("output, 600 over 700 W", "0.92 to 0.95", f"{less:.3f}", "vendor page, weak"))
    exponent, used = fitted_exponent(catalog), plain.power_curve
    assert used is not None
    said = f"\nThe exponent that fits best is {exponent:.2f}; the catalog has {used.exponent:g}.\n"
    return table(("figure", "published", "predicted", "source"), rows) + said


def splitwise_ratios(catalog: Catalog) -> tuple[float, float, int]:
    """Return predicted times with the cap over those without on Splitwise's rows: first token, later tokens, rows."""
    import polars as pl

    rows = catalog.measurements().filter(pl.col("vendor_system") == CAPPED)
    names = (RATED, f"{RATED}@350w")
    plain, capped = (
        tokopt.estimate_many(rows.with_columns(vendor_system=pl.lit(name)), catalog=catalog) for name in names
    )
    ratios = [
        statistics.median((capped[column] / plain[column]).drop_nulls().to_list())
        for column in ("predicted_ttft_ms", "predicted_tpot_ms")
    ]
    return ratios[0], ratios[1], rows.height


def offline(catalog: Catalog, gpu: str, tp: int = 1) -> tuple[float, float]:
    """Return output of an accelerator [tok/s] and drawn power of eight [kW] on MLPerf's Llama 2 70B without limits."""
    benchmark = catalog.benchmarks["mlperf-llama-2-70b-offline"]
    found = tokopt.estimate(
        model=benchmark.llm,
        gpu=gpu,
        framework="tensorrt-llm",
        precision="fp8",
        tp=tp,
        isl=benchmark.input_tokens,
        osl=benchmark.output_tokens,
        concurrency=1024,
        catalog=catalog,
    )
    assert found.output_tokens_per_s_per_gpu is not None
    assert found.power_kw.drawn is not None
    return found.output_tokens_per_s_per_gpu, 8.0 * found.power_kw.drawn


def modes_block(catalog: Catalog) -> str:
    """Return how many accelerators the modes fit into the same power, from plans."""
    rows = []
    for said, options in (
        ("`provisioned`", {}),
        ("`rated`", {"power_mode": "rated"}),
        ("`drawn`, 1 %", {"power_mode": "drawn"}),
        ("`drawn`, 0.1 %", {"power_mode": "drawn", "exceed": 0.001}),
    ):
        plan = tokopt.plan(power="10MW", model="llama-3.1-70b", gpus="h200_sxm", catalog=catalog, **options)
        figures = (plan.provisioned_power_kw, plan.it_power_kw, plan.drawn_power_kw, plan.peak_drawn_power_kw)
        rows.append((said, f"{sum(i.gpus for i in plan.fleet):,}", *(f"{kw or 0.0:,.0f}" for kw in figures)))
    header = ("mode", "accelerators", "provisioned, kW", "rated, kW", "drawn, kW", "drawn but for the chance, kW")
    return table(header, rows)


BLOCKS: dict[str, Callable[[Catalog], str]] = {
    "settings": settings_block,
    "measured": measured_block,
    "modes": modes_block,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the page's blocks, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="say which blocks are out of date")
    options = parser.parse_args(arguments)
    catalog = load_catalog()
    page = PAGE.read_text(encoding="utf-8")
    made = BLOCK.sub(lambda m: m["open"] + BLOCKS[m["name"]](catalog) + m["close"], page)
    if made == page:
        return 0
    if options.check:
        print(f"{PAGE.relative_to(ROOT)} is out of date: run python tools/build_power_docs.py")
        return 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
