"""What a client may ask: the keywords of `tokopt.plan` that name no files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from tokopt.api.asking import DEFAULT_LLM, DEFAULT_PRICES, DEFAULT_WORKLOAD
from tokopt.domain.plans import PlanRequest

UPLOADED = re.compile(r"upload-[0-9a-f]{16}\.(?:json|csv|parquet)")
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # as models are called where weights are published
PATH_PARTS = ("/", "\\", "..", "%2f", "%5c", "%2e")
FILE_ENDINGS = (".json", ".csv", ".parquet", ".pq", ".yaml", ".yml")


def looks_like_path(name: str) -> bool:
    """Return whether somewhere a name might be taken for that of a file."""
    plain = name.strip().lower()
    return (
        not plain
        or plain[0] in ".~"
        or not plain.isprintable()
        or any(part in plain for part in PATH_PARTS)
        or plain.endswith(FILE_ENDINGS)
    )


def _no_path(name: str) -> str:
    if not UPLOADED.fullmatch(name) and looks_like_path(name):
        raise PydanticCustomError("path", "looks like a file: names of the catalog and of uploads are allowed")
    return name


def _no_path_but_repository(name: str) -> str:
    return name if REPOSITORY.fullmatch(name) and not looks_like_path(name.replace("/", "-")) else _no_path(name)


Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100), AfterValidator(_no_path)]
Names = Annotated[tuple[Name, ...], Field(max_length=50)]
ModelName = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=100), AfterValidator(_no_path_but_repository)
]
Quantity = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]


class FrontierQuestion(BaseModel):
    """What a frontier depends on; fields mean what the keywords of `tokopt.frontier` mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelName = DEFAULT_LLM
    workload: Name = DEFAULT_WORKLOAD
    prices: Names = (DEFAULT_PRICES,)
    rates: dict[str, float] = Field(default_factory=dict, max_length=20)
    gpus: Names = ()
    frameworks: Names = ()
    precisions: Names = ()
    kv_precisions: Names = ()
    modes: Names = ()
    disable: Names = ()
    isl: float | None = Field(default=None, ge=1, le=1e7)
    osl: float | None = Field(default=None, ge=1, le=1e7)
    prefix_share: float | None = Field(default=None, ge=0, le=1)

    def keywords(self) -> dict[str, Any]:
        """Return the fields that say something, as keywords."""
        fields = self.model_dump(mode="json")
        return {name: value for name, value in fields.items() if value not in (None, [], {}, "")}


class PlanQuestion(FrontierQuestion):
    """What a plan depends on; fields mean what the keywords of `tokopt.plan` mean."""

    sla: Quantity = "50ms"
    power: Quantity | None = None
    demand: Quantity | None = None
    budget_usd_per_hour: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    objective: Quantity = "cost"
    exclude: Names = ()
    regions: Names = ()
    markets: Names = ()
    power_basis: Quantity = "utility"
    power_mode: Quantity = "provisioned"
    power_settings: Quantity = "default"
    inventory: dict[Name, Annotated[int, Field(ge=0, le=1_000_000_000)]] = Field(default_factory=dict, max_length=50)
    max_types: int | None = Field(default=None, ge=1, le=100)
    max_spot_share: float | None = Field(default=None, ge=0, le=1)
    survive: Quantity = "none"
    max_carbon_kg_per_hour: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    carbon_usd_per_tonne: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    max_quality_loss: float | None = Field(default=None, ge=0, le=1)
    robust: float | None = Field(default=None, ge=0, lt=0.9)
    mixed_pools: bool = False


class TwoQuestions(BaseModel):
    """Two plans to be set side by side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: PlanQuestion
    second: PlanQuestion


class WholeRequest(PlanRequest):
    """Everything that decides a plan, as plan files hold it in `request`."""

    model_config = ConfigDict(defer_build=False)  # described as soon as routes are


def named_files(request: PlanRequest) -> Iterator[tuple[str, str]]:
    """Yield every name in a request that a reader of files might get to see, with its field."""
    yield from (("prices", name) for name in request.prices)
    document = request.model_dump(mode="json", exclude={"prices"})
    yield from _named("", document)


def _named(field: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _named(name, each)
    elif isinstance(value, list):
        for each in value:
            yield from _named(field, each)
    elif isinstance(value, str) and field in ("llm", "catalog", "speculator"):
        yield field, value
