"""Options of `tokopt plan` on what a fleet has to serve and on what terms."""

from __future__ import annotations

from typing import Any

import click

from tokopt.cli.options import CommandT, several


def demands(command: CommandT) -> CommandT:
    """Add the options that say what has to be served, beyond one workload."""
    for option in (
        click.option(
            "--max-quality-loss",
            metavar="SHARE",
            help="Only precisions known to lose at most this share of the original's scores, like 1%.",
        ),
        click.option(
            "--workloads",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Classes of requests and periods, as YAML; instead of --model, --workload and --demand.",
        ),
    ):
        command = option(command)
    return command


def terms(command: CommandT) -> CommandT:
    """Add the options on places, markets, failures, carbon and today's fleet."""
    for option in (
        click.option("--change-cost", metavar="MONEY", help="Cost of moving one accelerator, once, like $200."),
        click.option(
            "--current",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Today's fleet: a plan file, or YAML with a list `fleet`. Changes are shown, and cost --change-cost.",
        ),
        click.option("--carbon-price", metavar="MONEY", help="Price of a tonne of carbon, added to costs, like $80."),
        click.option("--max-carbon", metavar="RATE", help="Most carbon, mean over the horizon, like 200kg/h."),
        click.option(
            "--survive",
            metavar="node|zone",
            default=None,
            help="Spare capacity: the demand is still served after any one unit, or any one zone, failed.",
        ),
        click.option(
            "--spot-reserve", metavar="SHARE", help="Share of spot capacity that stays idle.  [default with spot: 10%]"
        ),
        click.option("--max-spot-share", metavar="SHARE", help="Most of each class's requests on spot units."),
        click.option(
            "--mixed-pools",
            is_flag=True,
            default=None,
            help="Also consider replicas that prefill on one accelerator and decode on another.",
        ),
        several("--site-power", metavar="REGION=POWER,...", help="Most power in a region, like us-east-1=2MW."),
    ):
        command = option(command)
    return command


def api_keywords(request: dict[str, Any]) -> dict[str, Any]:
    """Return keywords of the API for options whose text is read here.

    Raises:
        InputError: A text that is not understood.
    """
    from tokopt.api import amounts

    if "max_carbon" in request:
        request["max_carbon_kg_per_hour"] = amounts.kg_per_hour(request.pop("max_carbon"))
    if "carbon_price" in request:
        request["carbon_usd_per_tonne"] = amounts.amount(request.pop("carbon_price"), what="--carbon-price")
    if "change_cost" in request:
        request["change_usd_per_gpu"] = amounts.amount(request.pop("change_cost"), what="--change-cost")
    if "site_power" in request:
        request["site_power"] = amounts.power_of_sites(request["site_power"])
    return request
