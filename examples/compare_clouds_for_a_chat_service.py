"""My chat service gets 200 requests a second. Which cloud serves it cheapest, and is buying from several cheaper?"""

from __future__ import annotations

import tokopt

SERVICE = {
    "model": "llama-3.1-8b",
    "workload": "chat",
    "sla": "tpot=40ms,ttft=1s,p99",
    "demand": "200req/s",
    "markets": "on_demand",
}
PRICE_LISTS = ("aws", "gcp", "lambda", "nebius", "aws,gcp,lambda,nebius")

catalog = tokopt.load_catalog()  # read once, used for every question
plans = {prices: tokopt.plan(catalog=catalog, prices=prices, **SERVICE) for prices in PRICE_LISTS}

print(f"{SERVICE['model']}, {SERVICE['demand']} of {SERVICE['workload']}, {SERVICE['sla']}\n")
print(f"{'price list':<24} {'$/hour':>9} {'$/M out':>8}  fleet")
for prices, plan in plans.items():
    if plan.status == "infeasible":
        why = "; ".join(f"{row.constraint} {row.requested}, best {row.nearest}" for row in plan.nearest_feasible)
        print(f"{prices:<24} {'none':>9} {'':>8}  {why}")
        continue
    fleet = " + ".join(f"{i.units} x {i.instance_type} ({i.gpus} {i.accelerator})" for i in plan.fleet)
    print(f"{prices:<24} {plan.usd_per_hour:9,.2f} {plan.usd_per_million_output_tokens:8.4f}  {fleet}")

answered = {prices: plan for prices, plan in plans.items() if plan.status != "infeasible" and "," not in prices}
winner = min(answered, key=lambda prices: answered[prices].usd_per_hour)
together = plans[PRICE_LISTS[-1]]
saved = 1.0 - together.usd_per_hour / answered[winner].usd_per_hour
print(f"\nWinner: {winner}, ${answered[winner].usd_per_hour:,.2f} an hour.")
print(f"All lists together: ${together.usd_per_hour:,.2f} an hour, {saved:.1%} less than the winner alone.")
for prices, plan in answered.items():
    dearer = plan.usd_per_hour / answered[winner].usd_per_hour - 1.0
    if prices != winner:
        print(f"  {prices} would have to cut its prices by {dearer / (1.0 + dearer):.0%} to break even.")
