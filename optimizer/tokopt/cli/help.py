"""Commands whose help is read: options under headings, and every default with the reason for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

from tokopt.cli.completing import complete
from tokopt.cli.defaults import ALSO, WHY

FLAG = "--explain-defaults"
MANY_OPTIONS = 13  # from which on a list of options is cut into sections
LAST, OTHER = "Output and catalog", "Other options"
SECTIONS = {
    "What is asked": (
        "model workload isl osl prefix-share reuse workloads demand sla max-quality-loss expert-traffic duration "
        "burstiness daily concurrency batch scenarios"
    ),
    "What to buy, and where": (
        "prices rate owned gpu without region market budget inventory max-types mixed-pools max-spot-share "
        "spot-reserve most accelerator"
    ),
    "Power and carbon": "power power-basis power-mode exceed pue power-settings site-power max-carbon carbon-price",
    "Set-ups": (
        "framework precision kv-precision mode disable tp pp ep dp cp dcp redundant-experts two-batch-overlap prefill "
        "decode mtp speculator depth chunk-tokens max-running kv-offload"
    ),
    "Requests": "trace arrivals load trace-speed router split replicas period",
    "Failures and scaling": "node-mtbf spot-interruptions recovery autoscale",
    "The search": "knobs objectives sampler trials time-limit study study-name item simulator-alone",
    "Runs": "requests replications warm-up seed jobs cluster store",
    "Goals and guarantees": "objective survive robust verify current change-cost",
    "Model and measurements": "perf speculation-table by prefix min-rows",
    "What was measured": "plan gpus framework-version stat",
    "The trace": "periods name drop-long allow-unsorted",
    LAST: (
        "out text parts csv html plots plot plot-format quick list all catalog json quiet debug explain-defaults help"
    ),
}
SECTION_OF = {name: title for title, names in SECTIONS.items() for name in names.split()}


class Command(click.Command):
    """A command with long options under headings, which explains its defaults when it is asked."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        complete(self.params)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, with the one that asks for defaults before `--help`."""
        found = super().get_params(ctx)
        flag = click.Option([FLAG], is_flag=True, expose_value=False, help="Print every default, and why it is that.")
        return [*found[:-1], flag, *found[-1:]] if found and found[-1].name == "help" else [*found, flag]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options off the arguments; where defaults are asked for, print them and be done."""
        own = args[: args.index("--")] if "--" in args else args
        if FLAG not in own:
            return super().parse_args(ctx, args)
        ctx.resilient_parsing = True
        super().parse_args(ctx, [word for word in args if word != FLAG])
        rows = list(explained(self, ctx))
        if ctx.params.get("as_json"):
            from tokopt.cli.output import print_json

            print_json({"command": ctx.command_path, "defaults": rows})
        else:
            from tokopt.cli.output import print_report
            from tokopt.report.defaults import defaults_report

            print_report(defaults_report(ctx.command_path, rows))
        raise click.exceptions.Exit(0)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: few in one list, many under headings."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option) and not param.hidden]
        if len(options) < MANY_OPTIONS:
            super().format_options(ctx, formatter)
            return
        for title in (*SECTIONS, OTHER):
            rows = [param.get_help_record(ctx) for param in options if section_of(param) == title]
            if rows:
                with formatter.section(title):
                    formatter.write_dl([row for row in rows if row is not None])


def section_of(param: click.Parameter) -> str:
    """Return the heading that an option stands under."""
    return SECTION_OF.get(max(param.opts, key=len).removeprefix("--"), OTHER)


def explained(command: click.Command, ctx: click.Context) -> Iterator[dict[str, Any]]:
    """Yield what each option is where it is not given, what it was given as, what it means and why it is that."""
    for param in command.params:
        if not isinstance(param, click.Option) or section_of(param) == LAST or not param.expose_value:
            continue
        name = param.opts[0]
        given = ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.COMMANDLINE
        yield {
            "option": name,
            "default": default_of(param),
            "given": _text(ctx.params.get(param.name or "")) if given else None,
            "means": re.sub(r"\s*\[default[^\]]*\]", "", param.help or ""),
            "why": WHY.get(f"{command.name} {name}", WHY.get(name, "")),
        }
    for what, default, means, why in ALSO.get(command.name or "", ()):
        yield {"option": what, "default": default, "given": None, "means": means, "why": why}


def default_of(param: click.Option) -> str:
    """Return what an option is where it is not given, in words."""
    said = re.search(r"\[default(?: with (\w+))?: ([^\]]*)\]", param.help or "")
    if said is not None:
        return f"with {said[1]}: {said[2]}" if said[1] else said[2]
    if param.is_flag:
        return "on" if param.default is True else "off"
    value = param.default
    if value is None or not isinstance(value, (str, int, float)):
        return "none"
    return f"{value:,}" if isinstance(value, int) else str(value) or "none"


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
