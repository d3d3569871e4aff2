#!/usr/bin/env python3
"""Makes the sample traces in `examples/traces/`: random requests, in the columns of every format that is read.

Nothing in them is from a published trace. The same script makes the same files; `--check` says whether they are there.

    python tools/build_sample_traces.py
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "traces"
START = datetime.datetime(2031, 3, 4, 9, 0, 0)


def lengths(rng: random.Random, mean: float, spread: float, most: int) -> int:
    """Return a log-normal length."""
    return max(1, min(most, round(rng.lognormvariate(0.0, spread) * mean)))


def times(rng: random.Random, count: int, span_s: float, cv2: float) -> list[float]:
    """Return times of a renewal process that are scaled to a span."""
    total, found = 0.0, []
    for _ in range(count):
        total += rng.gammavariate(1.0 / cv2, cv2)
        found.append(total)
    return [(time - found[0]) / (total - found[0]) * span_s for time in found]


def azure(zoned: bool) -> Callable[[random.Random], str]:
    """Return a maker of Azure's columns: of 2023, with seven digits of a second, or of 2024, with a zone."""

    def make(rng: random.Random) -> str:
        rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
        for number, time in enumerate(times(rng, 90, 1500.0, 3.0)):
            moment = START + datetime.timedelta(seconds=time if number else 0.0)
            # Where the part of a second is zero, 2024's columns leave it out.
            part = f".{moment.microsecond:06d}" if moment.microsecond or not zoned else ""
            written = f"{moment:%Y-%m-%d %H:%M:%S}{part}" + ("+00:00" if zoned else "0")
            rows.append(f"{written},{lengths(rng, 900, 0.9, 8000)},{lengths(rng, 120, 0.8, 1500)}")
        return "\n".join(rows) + "\n"

    return make


def burstgpt(rng: random.Random) -> str:
    """Return BurstGPT's columns: whole seconds, two models, and some requests that failed."""
    rows = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"]
    for time in times(rng, 110, 5400.0, 2.0):
        model, log = rng.choice([("ChatGPT", "Conversation log"), ("ChatGPT", "API log"), ("GPT-4", "API log")])
        prompt = lengths(rng, 400, 0.8, 4000)
        answer = 0 if rng.random() < 0.06 else lengths(rng, 180, 0.7, 2000)
        rows.append(f"{1000 + int(time)},{model},{prompt},{answer},{prompt + answer},{log}")
    return "\n".join(rows) + "\n"


class Talks:
    """Prompts in blocks, some of which go on with a conversation or start with what others start with."""

    def __init__(self, rng: random.Random, block: int, first: int, more: int) -> None:
        self.rng, self.block, self.first, self.more = rng, block, first, more
        self.open: list[list[int]] = []
        self.next = 3  # 0 to 2 are starts that many share

    def prompt(self) -> tuple[int, list[int]]:
        """Return the tokens and the blocks of a prompt, the last of which is not full."""
        if self.open and self.rng.random() < 0.6:
            blocks = self.open.pop(self.rng.randrange(len(self.open)))
        else:
            blocks = [self.rng.randrange(3), *self.fresh(self.rng.randint(1, self.first))]
        blocks = blocks + self.fresh(self.rng.randint(1, self.more))
        self.open.append(blocks)
        partial = self.fresh(1)
        return len(blocks) * self.block + self.rng.randrange(1, self.block), blocks + partial

    def fresh(self, count: int) -> list[int]:
        """Return blocks that nobody had."""
        self.next += count
        return list(range(self.next - count, self.next))


def mooncake(rng: random.Random) -> str:
    """Return Mooncake's keys: milliseconds, a few requests at a time, blocks of 512 tokens."""
    talks, rows = Talks(rng, 512, 8, 3), []
    for time in times(rng, 80, 240.0, 1.0):
        tokens, blocks = talks.prompt()
        row = {
            "timestamp": int(time / 3.0) * 3000,
            "input_length": tokens,
            "output_length": lengths(rng, 300, 0.6, 2000),
        }
        rows.append(json.dumps({**row, "hash_ids": blocks}))
    return "\n".join(rows) + "\n"


def bailian(rng: random.Random) -> str:
    """Return Qwen-Bailian's keys: seconds, blocks of 16 tokens."""
    talks, rows = Talks(rng, 16, 8, 4), []
    for number, time in enumerate(times(rng, 50, 300.0, 1.0)):
        tokens, blocks = talks.prompt()
        row = {"chat_id": number, "parent_chat_id": -1, "timestamp": round(time, 3), "input_length": tokens}
        row |= {
            "output_length": lengths(rng, 200, 0.6, 2000),
            "type": rng.choice(["text", "text", "search"]),
            "turn": 1,
        }
        rows.append(json.dumps({**row, "hash_ids": blocks}))
    return "\n".join(rows) + "\n"


def own(rng: random.Random) -> str:
    """Return tokopt's own columns: a day of two classes, one of which is busy by day and repeats itself."""
    talks, rows = Talks(rng, 256, 4, 2), ["time_s,input_tokens,output_tokens,class,hash_ids,block_tokens"]
    for time in times(rng, 240, 86_400.0, 1.0):
        hour = time / 3600.0
        if rng.random() < (0.75 if 8.0 <= hour < 20.0 else 0.2):
            tokens, blocks = talks.prompt()
            hashes = " ".join(map(str, blocks[:-1]))
            rows.append(f"{time:.3f},{tokens},{lengths(rng, 250, 0.6, 2000)},chat,{hashes},256")
        else:
            rows.append(f"{time:.3f},{lengths(rng, 3000, 0.8, 30_000)},{lengths(rng, 80, 0.5, 900)},batch,,256")
    return "\n".join(rows) + "\n"


SAMPLES: dict[str, Callable[[random.Random], str]] = {
    "azure.csv": azure(zoned=False),
    "azure_zoned.csv": azure(zoned=True),
    "burstgpt.csv": burstgpt,
    "mooncake.jsonl": mooncake,
    "bailian.jsonl": bailian,
    "requests.csv": own,
}
PARQUET = "requests.parquet"  # the same as requests.csv; its bytes depend on the library's version


def made() -> dict[str, str]:
    """Return the text of every sample."""
    return {name: make(random.Random(f"tokopt {name}")) for name, make in SAMPLES.items()}


def parquet(text: str) -> bytes:
    """Return the table of a CSV text as Parquet, hashes as lists."""
    import polars as pl

    hashes = pl.col("hash_ids").fill_null("").str.split(" ").list.eval(pl.element().cast(pl.Int64, strict=False))
    out = io.BytesIO()
    pl.read_csv(text.encode(), schema_overrides={"hash_ids": pl.String}).with_columns(
        hashes.list.drop_nulls().alias("hash_ids")
    ).write_parquet(out, statistics=False)
    return out.getvalue()


def main() -> int:
    """Write the samples, or check that they are as they would be written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a file differs")
    checking = parser.parse_args().check
    FOLDER.mkdir(exist_ok=True)
    differ = []
    for name, text in made().items():
        path = FOLDER / name
        if checking and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            differ.append(name)
        if not checking:
            path.write_text(text, encoding="utf-8")
            if name == "requests.csv":
                (FOLDER / PARQUET).write_bytes(parquet(text))
    if differ:
        print(f"differ: {', '.join(differ)}; run: python tools/build_sample_traces.py", file=sys.stderr)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
