"""All benchmarks by one command: `python benchmarks/run.py`. Prints medians, ratios to the bars and peak memory.

Nothing here asserts a time: machines differ, and a slow one is no defect.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


@dataclass(frozen=True)
class Figure:
    """One measured figure against its bar; `at_most` tells which side of the bar is good."""

    name: str
    value: float
    bar: float
    unit: str
    at_most: bool
    note: str = ""

    def line(self) -> str:
        met = self.value <= self.bar if self.at_most else self.value >= self.bar
        sign = "<=" if self.at_most else ">="
        ratio = self.value / self.bar if self.bar else 1.0 + self.value
        return f"{self.name:<44} {self.value:>12,.4g} {self.unit:<14} bar {sign} {self.bar:,.4g}   x{ratio:<8.3g} " + (
            f"{'met' if met else 'MISSED':<7} {self.note}"
        )


def child(arguments: list[str]) -> tuple[float, float, bytes]:
    """Run a command as a cold process; return its wall seconds, peak memory in MiB and standard output."""
    read, write = os.pipe()
    started = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.dup2(write, 1)
        os.execv(arguments[0], arguments)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        output = stream.read()
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)}: exit status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024.0, output


def main_job(runs: int) -> list[Figure]:
    """Run the main job, cold, command to answer."""
    command = [sys.executable, "-m", "tokopt", "plan", "--power", "10MW", "--sla", "50ms", "--json"]
    results = [child(command) for _ in range(runs + 1)][1:]
    plan = json.loads(results[0][2])
    seconds = statistics.median(r[0] for r in results)
    return [
        Figure("main job, cold process", seconds, 1.5, "s", True, f"peak {max(r[1] for r in results):,.0f} MiB"),
        Figure("main job, deployments considered", plan["search"]["deployments_considered"], 1e6, "", False),
        Figure("main job, proven gap", plan["gap"], 0.0, "", True, plan["status"]),
    ]


def help_text(runs: int) -> list[Figure]:
    """Run `tokopt --help`, cold."""
    results = [child([sys.executable, "-m", "tokopt", "--help"]) for _ in range(runs + 1)][1:]
    return [Figure("tokopt --help, cold process", statistics.median(r[0] for r in results), 0.2, "s", True)]


def evaluation(runs: int) -> list[Figure]:
    """Evaluate set-ups x batches of DeepSeek-R1 on one core: steps, memory, throughput and latencies."""
    import tokopt
    from tokopt.perf.queueing import Limits
    from tokopt.search.screening import screen
    from tokopt.search.setups import setups
    from tokopt.search.space import families

    catalog = tokopt.load_catalog()
    workload = catalog.workload("agentic")
    limits = Limits(tpot_s=0.05, ttft_s=10.0, e2e_s=float("inf"), statistic="p99")
    family = next(
        families(
            catalog.accelerator("gb300_nvl72"),
            tuple(catalog.frameworks.values()),
            (catalog.precision("nvfp4"),),
            {"fp8": 8.0},
            catalog.llm("deepseek-r1"),
            catalog.calibration,
        )
    )
    chosen = setups(family, 72, role="agg")
    rates = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        evaluated = 0
        for _ in range(10):
            screened = screen(family, chosen, workload, limits, prefill=True)
            evaluated += screened.considered - screened.did_not_fit
        rates.append(evaluated / (time.perf_counter() - started))
    note = "those that fit in memory"
    return [Figure("evaluation, one core", statistics.median(rates[1:]), 1e6, "deployments/s", False, note)]


def fleet_program(runs: int) -> list[Figure]:
    """Solve 12 accelerators x 30 columns x 60 classes to 1e-4, for fleets of about 5, 15 and 50 MW."""
    from fleet_instances import synthetic
    from tokopt.fleet import solve_fleet

    figures = []
    for rate in (3000.0, 10_000.0, 30_000.0):
        seconds, gaps, watts = [], [], []
        for seed in range(runs):
            problem = synthetic(seed, requests_per_s=rate)
            started = time.perf_counter()
            solution = solve_fleet(problem, shadow_prices=False)
            seconds.append(time.perf_counter() - started)
            gaps.append(solution.gap)
            watts.append(sum(c.power_w * n for c, n in zip(problem.columns, solution.blocks, strict=True)) / 1e6)
        note = f"worst gap {max(gaps):.1e}, slowest {max(seconds):.2f} s, {statistics.median(watts):.0f} MW"
        figures.append(Figure(f"fleet 12x30x60, {rate:,.0f} req/s", statistics.median(seconds), 1.0, "s", True, note))
    return figures


def market_program(_runs: int) -> list[Figure]:
    """Solve 50 providers x 20 regions x 15 accelerators x 20 classes x 24 periods to 1e-3, in a process of its own."""
    code = (
        "import resource, time; from fleet_instances import market; from tokopt.fleet import solve_fleet; "
        "problem = market(0); started = time.perf_counter(); answer = solve_fleet(problem, shadow_prices=False); "
        "print(time.perf_counter() - started, answer.gap, len(problem.columns), "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, check=True)
    seconds, gap, columns, peak = map(float, done.stdout.split())
    note = f"gap {gap:.1e}, {columns:,.0f} columns, peak memory {peak:,.0f} MiB"
    return [Figure("fleet 50x20x15x20x24", seconds, 60.0, "s", True, note)]


def melange(_runs: int) -> list[Figure]:
    """Solve the two-GPU example of Melange: 4.68 USD/h is the true optimum, 6.70 the published answer."""
    from tokopt.fleet import Column, FleetProblem, Goal, solve_fleet

    def column(name: str, price: float, rates: tuple[float, ...]) -> Column:
        return Column(
            name=name,
            accelerator=name,
            offer=name,
            accelerators_per_block=1,
            replicas_per_block=1,
            units_per_block=1,
            usd_per_hour=price,
            power_w=300.0,
            requests_per_s=rates,
        )

    problem = FleetProblem(
        columns=(column("A10G", 1.01, (2, 1, 5, 2)), column("A100", 3.67, (20, 20, 40, 20))),
        demand=(6.0, 3.0, 15.0, 6.0),
        tokens_per_request=(1.0, 1.0, 1.0, 1.0),
        goal=Goal.COST,
    )
    solution = solve_fleet(problem)
    return [
        Figure("Melange example", solution.objective, 4.68 * (1 + 1e-9), "USD/h", True, f"gap {solution.gap:g}"),
    ]


def price_files(runs: int) -> list[Figure]:
    """Read a synthetic price file of a million rows of every format, CSV and Parquet, cold."""
    import resource
    import tempfile
    from pathlib import Path

    from price_files import ROWS, write

    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name, paths in write(Path(folder)).items():
            for path in paths:
                command = [sys.executable, "-m", "tokopt", "prices", "check", str(path), "--json"]
                results, processor = [], []
                for _ in range(min(runs, 3)):
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)
                    results.append(child(command))
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
                found = json.loads(results[0][2])
                seconds, peak = statistics.median(r[0] for r in results), max(r[1] for r in results)
                note = f"{path.stat().st_size / 1e6:,.0f} MB, {found['offers']:,} offers of {ROWS:,} rows, "
                note += f"{statistics.median(processor):.1f} s of processor time"
                title = f"{name} prices, {path.suffix.removeprefix('.')}"
                figures.append(Figure(title, seconds, 15.0, "s", True, note))
                figures.append(Figure(f"{title}, peak memory", peak, 1024.0, "MiB", True))
    return figures


COMPARED = """
defaults: {workload: chat}
matrix:
  model: [llama-3.1-70b, qwen3-32b, gpt-oss-120b, deepseek-r1]
  sla: ["tpot=25ms,ttft=1s", "tpot=40ms,ttft=1s", "tpot=60ms,ttft=2s", "tpot=80ms,ttft=2s", "tpot=100ms,ttft=2s"]
  demand: [20req/s, 50req/s, 100req/s, 300req/s, 1000req/s]
"""
COMPARED_LISTS = "aws,gcp,azure,lambda,nebius,coreweave,crusoe,ownership-hyperscaler,ownership-neocloud,rental-3y"


def comparison(runs: int) -> list[Figure]:
    """Compare 10 price lists over 100 scenarios on all cores, command to answer; at most three runs."""
    import resource
    import tempfile

    walls, peaks, busy = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "scenarios.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(COMPARED)
        command = [sys.executable, "-m", "tokopt", "compare", "--scenarios", path, "--prices", COMPARED_LISTS]
        for _ in range(min(runs, 3)):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall, peak, output = child([*command, "--json", "--quiet"])
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            walls.append(wall)
            peaks.append(peak)
            busy.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    found = json.loads(output)
    seconds, cells = statistics.median(walls), found["cells"]
    answered = sum(row["status"] in ("optimal", "feasible", "infeasible") for row in found["rows"])
    note = f"{statistics.median(busy):.0f} CPU s, largest process {max(peaks):,.0f} MiB"
    return [
        Figure(f"comparison, {cells:,} cells", seconds, 60.0, "s", True, note),
        Figure(
            "comparison, cells a second", cells / seconds, 1000.0 / 60.0, "cells/s", False, f"{answered:,} answered"
        ),
    ]


def simulator(runs: int) -> list[Figure]:
    """Simulate 100 replicas on one core, long streams for their memory, and have the inner loop compiled and loaded."""
    script = str(Path(__file__).parent / "simulator.py")

    def measured(part: str, times: int = 1) -> list[dict[str, float]]:
        return [json.loads(child([sys.executable, script, part])[2]) for _ in range(times)]

    def middle(found: list[dict[str, float]], name: str, per: str = "seconds") -> float:
        return statistics.median(each[name] / each[per] for each in found)

    figures = []
    measured("loading")  # compiles what is not compiled yet
    for part, title in (
        ("fleet", "100 replicas"),
        ("router", "the same by shortest queue"),
        ("caches", "16 replicas by caches"),
    ):
        found = measured(part, runs)
        note = f"{found[0]['requests']:,.0f} requests, {found[0]['steps']:,.0f} steps, {found[0]['peak_mib']:,.0f} MiB"
        rate = 60.0 * middle(found, "requests")
        figures.append(Figure(f"simulator, {title}", rate, 200_000.0, "requests/min", False, note))
        figures.append(Figure(f"simulator, {title}: tokens", middle(found, "tokens"), 1e6, "tokens/s", False))
    short, long = measured("100000")[0], measured("1000000")[0]
    note = f"{short['peak_mib']:,.0f} and {long['peak_mib']:,.0f} MiB"
    ratio = long["peak_mib"] / short["peak_mib"]
    figures.append(Figure("simulator, memory of ten times the requests", ratio, 1.05, "times", True, note))
    loading = statistics.median(each["seconds"] for each in measured("loading", runs))
    figures.append(Figure("simulator, machine code loaded", loading, 1.0, "s", True))
    compiling = measured("compiling")[0]
    note = f"{compiling['seconds']:.0f} s in all, once after each change"
    figures.append(Figure("simulator, compiled, processor time", compiling["processor"], 30.0, "s", True, note))
    return figures


SUBJECTS: dict[str, Callable[[int], list[Figure]]] = {
    "plan": main_job,
    "help": help_text,
    "evaluation": evaluation,
    "fleet": fleet_program,
    "market": market_program,
    "melange": melange,
    "prices": price_files,
    "compare": comparison,
    "simulate": simulator,
}


def main() -> None:
    """Run the chosen benchmarks and print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", help=f"which to run: {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each")
    options = parser.parse_args()
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, medians of {options.runs} runs")
    for name in options.subjects or SUBJECTS:
        for figure in SUBJECTS[name](options.runs):
            print(figure.line(), flush=True)
    import resource

    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0:,.0f} MiB")


if __name__ == "__main__":
    main()
