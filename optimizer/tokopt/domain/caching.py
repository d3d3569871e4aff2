"""Prompts that repeat: what requests have in common, who keeps it in which memory, and what that yields."""

from __future__ import annotations

from enum import StrEnum, unique

from pydantic import BaseModel, ConfigDict, Field


@unique
class Router(StrEnum):
    """How a fleet's router chooses a cache: the replica, and its attention-data-parallel rank."""

    RANDOM = "random"
    ROUND_ROBIN = "round_robin"
    LEAST_LOADED = "least_loaded"
    KV_AWARE = "kv_aware"  # where the request's prefix is cached

    @property
    def returns(self) -> bool:
        """Whether a conversation comes back to the cache that it left; else that is left to chance."""
        return self is Router.KV_AWARE


@unique
class Offload(StrEnum):
    """Where a cache goes that accelerator memory has no room for."""

    NONE = "none"
    HOST = "host"
    SSD = "ssd"


class Reuse(BaseModel):
    """What requests have in common: a prefix of many, turns of a conversation, or a share and a working set stated."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    shared_tokens: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # prefix that many requests start with
    shared_prefixes: float = Field(default=1.0, ge=1, allow_inf_nan=False)  # distinct ones, met alike
    turns: float = Field(default=1.0, ge=1, allow_inf_nan=False)  # mean requests of a conversation
    turn_gap_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # mean, from an answer to the next turn
    turn_tokens: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # by which prompts grow; None = evenly
    reusable_share: float | None = Field(default=None, gt=0, lt=1)  # of input tokens, instead of all the above
    working_set_tokens: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # that it is spread over

    def impossible(self, input_tokens: float) -> str:
        """Return why prompts of a mean length cannot be like this, or nothing."""
        stated = self.reusable_share is not None
        if stated != (self.working_set_tokens is not None):
            return "a reusable share and its working set go together"
        if stated:
            if self.shared_tokens or self.turns > 1:
                return "a reusable share says what prefixes and turns say too: give one of them"
            least = (self.reusable_share or 0.0) * input_tokens
            few = (self.working_set_tokens or 0.0) < least
            return f"the working set is below the {least:,.0f} tokens that one request reuses" if few else ""
        if not self.shared_tokens and self.turns <= 1:
            return "nothing repeats: give a shared prefix, turns, or a share and a working set"
        if self.shared_tokens >= input_tokens:
            return f"the shared prefix takes the whole prompt of {input_tokens:,.0f} tokens"
        if self.turns > 1 and self.turn_gap_s is None:
            return "turns need the time between them"
        most = 2.0 * (input_tokens - self.shared_tokens) / max(self.turns - 1.0, 1e-9)
        if self.turn_tokens is not None and self.turns > 1 and self.turn_tokens > most:
            return (
                f"prompts of {input_tokens:,.0f} tokens on average do not grow by {self.turn_tokens:,.0f} in each of "
                f"{self.turns:g} turns; at most {most:,.0f}"
            )
        return ""


class Caching(BaseModel):
    """How a deployment's caches are used, and what they yield for the workload that it was set up for."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    router: Router
    offload: Offload = Offload.NONE
    replicas: float | None = Field(default=None, ge=1, allow_inf_nan=False)  # that share the traffic; None = unknown
    hit_share: float = Field(ge=0, le=1)  # of input tokens, found in any tier
    device_share: float = Field(ge=0, le=1)  # of input tokens, found in accelerator memory
    restore_ms: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # for a mean request's offloaded tokens
