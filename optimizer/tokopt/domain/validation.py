"""How far predictions are from measurements."""

from __future__ import annotations

from pydantic import Field

from tokopt.domain.estimates import Record

COMPARED = (
    "output_tok_s_per_gpu",
    "tpot_ms",
    "ttft_ms",
    "power_kw",
)  # figures, by the column that holds the measurement
DEFAULT_BY = ("vendor_system", "framework", "model", "weight_precision", "serving_mode")
NOT_STATED = "not stated"


class ErrorGroup(Record):
    """Errors over rows that share a key. Mappings are by figure; null where nothing was compared. [%]"""

    key: dict[str, str]  # column -> value, in the catalog's spelling where the catalog knows it
    rows: int
    answered: int  # rows with a prediction
    compared: dict[str, int]  # rows with a prediction and a measurement
    not_predicted: dict[str, int]  # rows with a measurement and no prediction of it
    mape: dict[str, float | None]  # mean absolute percentage error
    mape_capped: dict[str, float | None]  # the same with each error counted as at most 100 %
    median_ape: dict[str, float | None]
    p90_ape: dict[str, float | None]
    bias: dict[str, float | None]  # mean signed error, each within ±100 %; above zero = predicted too high
    median_ratio: dict[str, float | None]  # predicted / measured, not in percent
    interval_coverage: float | None  # how often the 80 % range held the measurement, all figures together
    interval_coverage_by_figure: dict[str, float | None]


class CalibrationUsed(Record):
    """The constants that predictions were made with."""

    name: str
    version: str
    made_on: str
    fitted: bool  # to measurements; priors otherwise
    data_hash: str


class Validation(Record):
    """Errors of predictions against a table of measurements."""

    table: str
    rows: int
    answered: int
    compared: int  # rows of which at least one figure was compared
    by: tuple[str, ...]
    overall: ErrorGroup
    groups: tuple[ErrorGroup, ...]  # by the columns in `by`, those with most rows first
    by_prefix: tuple[ErrorGroup, ...]  # by what stands before the colon of a row's id
    by_scenario: tuple[ErrorGroup, ...]  # by scenario and serving mode
    by_role: tuple[ErrorGroup, ...]  # by what is doubtful in a row: its role, and whether speculation is known
    reasons: dict[str, int]  # why rows were not answered -> rows, the most frequent first
    left_out: dict[str, int]  # why rows were not looked at -> rows
    notes: tuple[str, ...]
    perf: str = "model"  # where step times came from
    databases: dict[str, int] = Field(default_factory=dict)  # part of the operator database that answered -> rows
    error_unit: str = "%"
    calibration: CalibrationUsed
    catalog_version: str
    tokopt_version: str
    points: tuple[tuple[float, float], ...] = Field(default=(), exclude=True, repr=False)  # throughput, measured first
