"""What users send, and what they are promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from tokopt.domain.caching import Reuse
from tokopt.domain.speculators import Domain

LEAST_BURSTINESS = 1e-6  # squared variation of times between arrivals; what is less is as good as 0, an even pace
MOST_BURSTINESS = 1000.0


def _known(burstiness: float) -> float:
    if burstiness and not LEAST_BURSTINESS <= burstiness <= MOST_BURSTINESS:
        raise PydanticCustomError("burstiness", f"0, or from {LEAST_BURSTINESS:g} to {MOST_BURSTINESS:g}")
    return burstiness


# Times between arrivals that vary by less than the least are not drawn in any reasonable time.
Burstiness = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_known)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Lengths of requests, in tokens, and how much of each prompt repeats.

    Lengths spread log-normally around their mean with the stated coefficient of variation (standard deviation over
    mean; 0 = fixed).
    """

    name: str
    input_tokens: float
    output_tokens: float
    input_cv: float = 0.0
    output_cv: float = 0.0
    prefix_share: float = 0.0  # share of input tokens found in the prefix cache; with `reuse`: in an endless one
    reuse: Reuse | None = None  # what repeats; None = `prefix_share` is found whatever the caches hold
    arrival_cv2: float = 1.0  # squared coefficient of variation of inter-arrival times; 1 = Poisson
    domain: Domain | None = None  # what the texts are about, which decides how well drafts of them are accepted
    aliases: tuple[str, ...] = ()
    source: str = ""
    observed_on: str = ""
    note: str = ""
    title: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)  # field name -> source key


@unique
class Statistic(StrEnum):
    """The statistic of a latency that a limit applies to."""

    MEAN = "mean"
    P50 = "p50"
    P75 = "p75"
    P90 = "p90"
    P95 = "p95"
    P99 = "p99"

    @property
    def quantile(self) -> float | None:
        """Probability of the percentile; None for the mean."""
        return None if self is Statistic.MEAN else int(self.value[1:]) / 100.0


@unique
class Scenario(StrEnum):
    """How a benchmark sends its requests."""

    OFFLINE = "offline"  # all at once
    SERVER = "server"  # Poisson arrivals, as many as keep the limits
    INTERACTIVE = "interactive"  # the same with tighter limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What a published benchmark sends to a model, and the latency that it allows; None = not known or no limit."""

    name: str
    title: str
    llm: str
    scenario: Scenario
    input_tokens: float
    output_tokens: float
    input_cv: float | None = None
    output_cv: float | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    statistic: Statistic = Statistic.P99
    aliases: tuple[str, ...] = ()
    source: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)  # field name -> source key
    observed_on: str = ""
    note: str = ""


@unique
class Limited(StrEnum):
    """A latency that may have a limit."""

    TTFT = "ttft"  # time to the first token
    TPOT = "tpot"  # time between two tokens after it
    E2E = "e2e"  # of the whole answer


class Sla(BaseModel):
    """Latency limits, each on `statistic` over requests; None = no limit."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    tpot_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    ttft_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    e2e_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    statistic: Statistic = Statistic.P99

    def limit_ms(self, latency: Limited) -> float | None:
        """Return the limit of a latency, None where it has none."""
        return {Limited.TTFT: self.ttft_ms, Limited.TPOT: self.tpot_ms, Limited.E2E: self.e2e_ms}[latency]
