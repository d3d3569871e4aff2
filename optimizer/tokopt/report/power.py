"""The power of a plan: which of its figures counts, and all three of them."""

from __future__ import annotations

from rich.console import RenderableType

from tokopt.domain.plans import Plan, PowerBasis, PowerMode
from tokopt.report.blocks import pairs
from tokopt.report.figures import UNKNOWN, number, power, share


def counted_name(plan: Plan) -> str:
    """Return which power counts, in words."""
    request, utility = plan.request, plan.power_basis is PowerBasis.UTILITY
    losses = f" x PUE {request.pue:g}" if utility else ""
    if plan.power_mode is PowerMode.DRAWN:
        return f"drawn{losses}, exceeded with a chance of {number(request.exceed * 100.0, 3)} % at most"
    if plan.power_mode is PowerMode.RATED:
        return f"nameplate of the servers{losses}"
    return "utility power provisioned for everything" if utility else "nameplate of the servers"


def power_lines(plan: Plan) -> RenderableType:
    """Return what counts of a plan's power, out of its limit, and the figures that do not."""
    limit = ""
    if plan.power_limit_kw is not None and plan.power_kw is not None:
        limit = f" of {power(plan.power_limit_kw)} ({share(plan.power_kw / plan.power_limit_kw)})"
    used = UNKNOWN if plan.power_kw is None else power(plan.power_kw)
    utility = plan.power_basis is PowerBasis.UTILITY
    others = [("drawn by the servers on average", plan.drawn_power_kw)]
    if plan.power_mode is not PowerMode.PROVISIONED or utility:
        others.insert(0, ("nameplate of the servers", plan.it_power_kw))
    if plan.power_mode is not PowerMode.PROVISIONED:
        others.insert(0, ("provisioned for everything", plan.provisioned_power_kw))
    said = [f"{name}: {UNKNOWN if kw is None else power(kw)}" for name, kw in others]
    if plan.peak_drawn_power_kw is not None:
        chance = f"{number(plan.request.exceed * 100.0, 3)} %"
        said[-1] += f", and more than {power(plan.peak_drawn_power_kw)} with a chance of {chance} at most"
    return pairs([("power", f"{used}{limit}, {counted_name(plan)}"), ("", "; ".join(said))])
