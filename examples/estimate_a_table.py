"""I have a list of set-ups to choose from. What would each deliver, before I rent anything?"""

from __future__ import annotations

import polars as pl

import tokopt

setups = pl.DataFrame(
    {
        "vendor_system": ["h100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "mi300x", "l4"],
        "model": ["llama-3.1-70b"] * 6,
        "framework": ["vllm"] * 6,
        "weight_precision": ["fp8"] * 6,
        "isl": [1024] * 6,
        "osl": [1024] * 6,
        "tp": [4, 8, 4, 2, 4, 1],
        "concurrency_or_batch": [64, 64, 64, 64, 64, 64],
    }
)

answered = tokopt.estimate_many(setups)

print("Llama 3.1 70B, 1,024 tokens in and out, 64 requests in flight\n")
print(f"{'accelerator':<12} {'tp':>3} {'TTFT ms':>9} {'TPOT ms':>8} {'tok/s/GPU':>10}  80 % range")
for row in answered.iter_rows(named=True):
    start = f"{row['vendor_system']:<12} {row['tp']:>3}"
    if row["predicted_reason"]:
        print(f"{start}  no prediction: {row['predicted_reason']}")
        continue
    rate = row["predicted_output_tok_s_per_gpu"]
    low, high = row["predicted_output_tok_s_per_gpu_low"], row["predicted_output_tok_s_per_gpu_high"]
    times = f"{row['predicted_ttft_ms']:9,.0f} {row['predicted_tpot_ms']:8.1f}"
    print(f"{start} {times} {rate:10,.0f}  {low:,.0f} to {high:,.0f}")

best = answered.sort("predicted_output_tok_s_per_gpu", descending=True, nulls_last=True).row(0, named=True)
print(f"\nMost tokens a GPU: {best['vendor_system']} with tp {best['tp']}.")
