"""What `check` says of a plan that nothing is wrong with."""

from __future__ import annotations

from tokopt.domain.plans import Plan, Status
from tokopt.report.figures import plural, power, rate, usd


def checked_line(plan: Plan) -> str:
    """Return one line that sums up a plan."""
    if plan.status is Status.INFEASIBLE:
        return "infeasible, as it says; nothing in it to verify"
    replicas = sum(item.replicas for item in plan.fleet)
    gpus = sum(item.gpus for item in plan.fleet)
    words = [f"{plan.status.value}, {plural(replicas, 'replica')} on {plural(gpus, 'GPU')}"]
    if plan.usd_per_hour is not None:
        words.append(f"{usd(plan.usd_per_hour)}/h")
    if plan.output_tokens_per_s is not None:
        words.append(rate(plan.output_tokens_per_s, "tok/s"))
    if plan.power_kw is not None:
        words.append(power(plan.power_kw))
    return ", ".join(words)
