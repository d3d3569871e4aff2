"""Plans that were simulated before they were recommended: what was cut, and what the simulator found."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.estimates import Record
from tokopt.domain.simulations import SimulatedClass, SimulationSettings, Verdict


class CapacityCut(BaseModel):
    """By how much less replicas are given than the queueing model says that they bear, so that limits hold.

    A cut of one deployment comes from simulating it; one without a deployment is for all others of the kind, which
    were not simulated: the least that any of the kind needed.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    of_class: str
    accelerator: str  # that decodes
    mode: ServingMode
    deployment: Deployment | None = None
    factor: float = Field(ge=0, le=1)  # of the capacity within limits; 0 = not to be used


class VerifiedItem(Record):
    """An item of a plan, as planned and as simulated at its planned rate."""

    of_class: str
    accelerator: str
    mode: ServingMode
    replicas: int
    requests_per_s: float  # of one replica, in the period that loads it most
    statistic: str
    limits_ms: dict[str, float]
    planned_ms: dict[str, float]
    simulated_ms: dict[str, float]  # empty where it is overloaded
    plus_minus_ms: dict[str, float]
    verdict: Verdict
    factor: float  # of the rate at which its limits hold: 1 = at the planned one


class VerificationRound(Record):
    """A plan that was simulated, and what came of it."""

    usd_per_million_output_tokens: float | None
    usd_per_hour: float | None
    output_tokens_per_s: float | None
    items: tuple[VerifiedItem, ...]


class Verification(Record):
    """How a plan was verified."""

    holds: bool  # the limits of every class, in a simulation of the whole fleet
    goodput: float | None
    classes: tuple[SimulatedClass, ...]  # of the last simulation
    rounds: tuple[VerificationRound, ...]  # the last one is of the plan itself
    settings: SimulationSettings
    note: str
