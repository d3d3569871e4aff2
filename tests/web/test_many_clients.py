"""Fifty clients at once: every answer is right, or says to come back; nothing hangs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import tokopt
from served_pages import Served

httpx = pytest.importorskip("httpx")

CLIENTS = 50
ROUNDS = 4
ALL_WITHIN_S = 120  # so that a deadlock is a failure, not a wait for ever
SMALL: dict[str, Any] = {"model": "qwen3-8b", "gpus": ["h100_sxm"], "workload": "chat", "sla": "50ms"}
POWERS = [f"{kw}kW" for kw in range(30, 130, 8)]


async def ask(client: Any, number: int) -> list[tuple[str, int, Any]]:
    found = []
    for turn in range(ROUNDS):
        power = POWERS[(number * 7 + turn) % len(POWERS)] if (number + turn) % 10 else "lots"
        response = await client.post("/api/v1/plan", json=SMALL | {"power": power})
        found.append((power, response.status_code, response.json()))
        if response.status_code == 503:
            assert int(response.headers["retry-after"]) > 0
    return found


async def ask_all(link: str) -> list[tuple[str, int, Any]]:
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=link, timeout=ALL_WITHIN_S, limits=limits) as client:
        several = await asyncio.wait_for(asyncio.gather(*(ask(client, n) for n in range(CLIENTS))), ALL_WITHIN_S)
    return [each for found in several for each in found]


def test_fifty_clients_at_once(server: Served) -> None:
    found = asyncio.run(ask_all(server.link))
    assert len(found) == CLIENTS * ROUNDS
    assert {status for _, status, _ in found} <= {200, 422, 503}
    right = {power: tokopt.plan(**SMALL, power=power, time_limit_s=15.0) for power in POWERS}
    for power, status, answer in found:
        if status == 422:
            assert power == "lots" and answer["field"] == "power"
        elif status == 200:
            assert answer["plan"] == right[power].model_dump(mode="json"), power
    assert sum(status == 200 for _, status, _ in found) > CLIENTS
