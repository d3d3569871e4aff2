"""What a plan has to serve: classes of requests, and how demand and prices change over a horizon."""

from __future__ import annotations

from enum import StrEnum, unique

from pydantic import BaseModel, ConfigDict, Field

from tokopt.domain.caching import Reuse
from tokopt.domain.deployments import Deployment
from tokopt.domain.speculators import Domain
from tokopt.domain.workloads import Burstiness, Sla

_FROZEN = ConfigDict(frozen=True, defer_build=True, extra="forbid")


@unique
class Survive(StrEnum):
    """What may fail without the demand going unserved."""

    NOTHING = "none"
    NODE = "node"  # any one unit that is bought whole: an instance, a node, a rack
    ZONE = "zone"  # everything in any one zone of a provider


class WorkloadShape(BaseModel):
    """A workload as a request states it, resolved from the catalog so that a plan can be solved again."""

    model_config = _FROZEN

    name: str
    input_tokens: float = Field(gt=0, allow_inf_nan=False)
    output_tokens: float = Field(gt=0, allow_inf_nan=False)
    input_cv: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)
    output_cv: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)
    prefix_share: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    reuse: Reuse | None = None
    arrival_cv2: Burstiness = 1.0
    domain: Domain | None = None


class TokenPrices(BaseModel):
    """What a million tokens earn."""

    model_config = _FROZEN

    usd_per_million_input_tokens: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    usd_per_million_output_tokens: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class WorkloadClass(BaseModel):
    """Requests of one kind: the model that they ask for, how long they are, how many, and what they are promised."""

    model_config = _FROZEN

    name: str
    llm: str
    workload: WorkloadShape
    sla: Sla
    ttft_by_default: bool = False  # the TTFT limit was not given: it is tokopt's default for the prompt length
    demand_requests_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # None = fill the limits
    earns: TokenPrices = TokenPrices()
    most_quality_loss: float | None = Field(default=None, ge=0, le=1)  # None = any precision that is served

    @property
    def usd_per_request(self) -> float:
        """What a request of mean length earns. [USD]"""
        shape, prices = self.workload, self.earns
        return (
            shape.input_tokens * prices.usd_per_million_input_tokens
            + shape.output_tokens * prices.usd_per_million_output_tokens
        ) / 1e6


class PlanPeriod(BaseModel):
    """A part of the horizon: how long it is, what is asked in it, and what has changed by then."""

    model_config = _FROZEN

    name: str
    hours: float = Field(gt=0, allow_inf_nan=False)
    demand_factor: float = Field(default=1.0, ge=0, allow_inf_nan=False)  # of every class's demand
    demand_factors: dict[str, float] = Field(default_factory=dict)  # by class, instead
    price_factors: dict[str, float] = Field(default_factory=dict)  # by market: prices that fall or rise
    start_hour: float | None = Field(default=None, ge=0, lt=24)  # of the day, where it is a part of one
    starts_on: str = ""  # YYYY-MM-DD: machines that come to market by then can be had; empty = no date
    usd_per_kwh_factor: float = Field(default=1.0, ge=0, allow_inf_nan=False)  # electricity against its yearly mean
    carbon_factor: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    def factor(self, name: str) -> float:
        """Return by how much the demand of a class differs from its stated one."""
        return self.demand_factors.get(name, self.demand_factor)


class CurrentUnits(BaseModel):
    """Units that run today, which a plan may be asked to keep to."""

    model_config = _FROZEN

    accelerator: str
    provider: str
    region: str = ""
    market: str
    instance_type: str = ""
    units: int = Field(ge=0)
    deployment: Deployment | None = None  # of their replicas; None = any set-up on them
