"""I have a contract for ten megawatts. What should I put there, and what will a million tokens cost?"""

from __future__ import annotations

import tokopt

plan = tokopt.plan(power="10MW", sla="50ms")

print(f"The plan ({plan.status.value}, proven to a gap of {plan.gap:.0%}):")
for item in plan.fleet:
    pools = f"{item.mode.value}, tp {item.tp}, ep {item.ep}, attention dp {item.dp}"
    if item.prefill and item.decode:
        pools = f"{item.prefill.workers} prefill and {item.decode.workers} decode workers; decode {pools}"
    print(f"  {item.gpus:,} {item.accelerator} in {item.nodes:,} nodes: {item.replicas:,} replicas of {item.model}")
    print(f"    {item.framework}, {item.precision}, {pools}")
    print(f"    TPOT p99 {item.tpot_ms.p99:.1f} ms, TTFT p99 {item.ttft_ms.p99 / 1e3:.1f} s")

price = plan.interval["usd_per_million_output_tokens"]
print(f"\nCost       ${plan.usd_per_million_output_tokens:.3f} per million output tokens")
print(f"           (80 % range ${price.low:.3f} to ${price.high:.3f}), ${plan.usd_per_hour:,.0f} an hour")
print(f"Output     {plan.output_tokens_per_s / 1e6:,.2f} million tokens/s")
print(f"Power      {plan.power_kw / 1e3:.2f} of {plan.power_limit_kw / 1e3:.2f} MW")

print("\nWhat holds it back:")
for row in plan.binding:
    print(f"  {row.constraint}: {row.detail}")
for row in plan.marginal:
    if row.output_tokens_per_s:
        print(f"  one more {row.unit} of {row.of}: {row.output_tokens_per_s:+,.0f} output tokens/s")

if plan.runner_up:
    other = ", ".join(f"{count:,} {name}" for name, count in plan.runner_up.accelerators.items())
    print(f"\nRunner-up without {plan.runner_up.without}: {other}, {plan.runner_up.worse_by:.0%} dearer a token")

print("\nAssumed:")
for line in plan.assumptions:
    print(f"  {line}")
