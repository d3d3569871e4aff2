"""From scenarios and names of price lists to the cells of a comparison; whatever is wrong is found here."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokopt.catalog import Catalog
from tokopt.catalog.scenario_files import ScenarioText, read_scenarios
from tokopt.domain.offers import PriceList
from tokopt.domain.plans import PlanRequest
from tokopt.errors import InputError
from tokopt.units import parse_duration
from tokopt.version import __version__

from .amounts import amount, kg_per_hour, power_of_sites, stock, usd_per_hour
from .asking import make_request
from .rates import parse_rates
from .services import class_space

# Options of `tokopt plan` that the API calls otherwise; every other word is the keyword itself.
YES_OR_NO = {"yes": True, "no": False}
WORDS = {
    "carbon-price": "carbon_usd_per_tonne",
    "change-cost": "change_usd_per_gpu",
    "max-carbon": "max_carbon_kg_per_hour",
    "budget": "budget_usd_per_hour",
    "framework": "frameworks",
    "gpu": "gpus",
    "kv-precision": "kv_precisions",
    "market": "markets",
    "mode": "modes",
    "precision": "precisions",
    "region": "regions",
    "time-limit": "time_limit_s",
    "without": "exclude",
}
ELSEWHERE = ("prices", "owned", "rates", "catalog_directory")  # the same for all scenarios, so said once
MOST_CELLS = 1_000_000
KEY_LAYOUT = 1  # raised when what a row says changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A scenario whose names and figures are checked; its price list is still open."""

    name: str
    request: PlanRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceGroup:
    """One or several price lists that are bought from together."""

    name: str  # as the user says it
    request_names: tuple[str, ...]  # as a request holds them
    prices: PriceList
    rates: Mapping[str, float]  # currency -> US dollars for one
    content: str  # hash of what it says


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One scenario under one price list, with the key that it is kept under."""

    key: str
    scenario: str
    price_list: str
    request: PlanRequest


def words() -> dict[str, str]:
    """Return what a scenario may say: word -> keyword of `make_request`."""
    keywords = [
        name
        for name, parameter in inspect.signature(make_request).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ELSEWHERE
    ]
    renamed = {keyword: word for word, keyword in WORDS.items()}
    return {renamed.get(keyword, keyword.replace("_", "-")): keyword for keyword in keywords}


def scenarios_of(catalog: Catalog, source: str | Path | Mapping[str, Any]) -> tuple[Scenario, ...]:
    """Return the scenarios of a file or mapping, every name and figure checked.

    Raises:
        InputError: Whatever is wrong, in one line with file and scenario.
    """
    content = _laid_out(source) if isinstance(source, Mapping) else Path(source)
    texts = read_scenarios(content, _word(words()))
    checked = _Checked(catalog, "scenarios" if isinstance(source, Mapping) else str(source))
    return tuple(checked.scenario(text) for text in texts)


def _laid_out(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a mapping in the layout of a file: names of scenarios to their options are enough."""
    return source if set(source) <= {"defaults", "scenarios", "matrix"} else {"scenarios": source}


def _word(known: Mapping[str, str]) -> Any:
    spelled = {**known, **{keyword: keyword for keyword in known.values()}}
    folded = {word.replace("_", "-"): keyword for word, keyword in spelled.items()}

    def keyword_of(written: str) -> str:
        plain = written.strip().lower().replace("_", "-")
        if plain in folded:
            return folded[plain]
        if plain in ("prices", "price-list", "price-lists"):
            raise InputError(f"{written}: price lists are compared: name them once, with --prices, not in a scenario")
        near = difflib.get_close_matches(plain, sorted(known), n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"options: {', '.join(sorted(known))}"
        raise InputError(f"unknown option {written[:60]!r}; {hint}")

    return keyword_of


class _Checked:
    """Turns texts into requests; what several scenarios have in common is looked up once."""

    def __init__(self, catalog: Catalog, said: str) -> None:
        self._catalog = catalog
        self._said = said
        self._hints = typing.get_type_hints(make_request)
        self._asked: dict[str, str] = {}
        self._spaces: set[str] = set()

    def scenario(self, text: ScenarioText) -> Scenario:
        """Return a scenario, or raise InputError with its name."""
        try:
            given = {key: self._fitting(key, value) for key, value in text.options.items()}
            request = make_request(self._catalog, **given)
            self._check_space(request)
        except ValidationError as error:
            raise InputError(f"{self._where(text)}: {error.errors()[0]['msg']}") from None
        except InputError as error:
            # An option is a word here, not a flag.
            plain = re.sub(r"(?<![\w-])--(?=[a-z])", "", str(error))
            raise InputError(f"{self._where(text)}: {plain}") from None
        except (OverflowError, ValueError) as error:
            raise InputError(f"{self._where(text)}: {error}") from None
        asked = request.model_dump_json()
        if asked in self._asked:
            raise InputError(f"{self._where(text)}: asks the same as {self._asked[asked]!r}; leave one out")
        self._asked[asked] = text.name
        return Scenario(name=text.name, request=request)

    def _where(self, text: ScenarioText) -> str:
        return f"{self._said}: scenario {text.name!r}"

    def _check_space(self, request: PlanRequest) -> None:
        """Raise InputError where the search would: a precision that a model is not served in, a context too long."""
        asked = search_signature(request)
        if asked in self._spaces:
            return
        for served in request.served_classes():
            class_space(request, self._catalog, served)
        self._spaces.add(asked)

    def _fitting(self, key: str, value: Any) -> Any:
        """Return a value as the keyword takes it."""
        if key == "budget_usd_per_hour":
            return usd_per_hour(str(value))
        if key in ("carbon_usd_per_tonne", "change_usd_per_gpu"):
            return amount(str(value), what=key.replace("_", "-"))
        if key == "mixed_pools":
            if str(value) not in YES_OR_NO:
                raise InputError(f"mixed-pools: {value!r} is neither 'yes' nor 'no'")
            return YES_OR_NO[str(value)]
        if key == "max_carbon_kg_per_hour":
            return kg_per_hour(str(value))
        if key == "site_power" and isinstance(value, str):
            return power_of_sites(value)
        if key == "current":
            return value
        if key == "time_limit_s":
            return parse_duration(str(value), what="time-limit")
        if key == "inventory" and isinstance(value, str):
            return stock(value)
        return _as_hinted(key.replace("_", "-"), value, self._hints[key])


def _as_hinted(word: str, value: Any, hint: Any) -> Any:
    kinds = {
        typing.get_origin(kind) or kind
        for kind in (typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,))
    }
    if isinstance(value, dict):
        if not kinds & {dict, Mapping}:
            raise InputError(f"{word}: a mapping says nothing here; {_meant(kinds)} is needed")
        if dict in kinds and any(count < 0 for count in value.values()):
            raise InputError(f"{word}: a number of accelerators cannot be below zero")
        return value
    if isinstance(value, list):
        if Sequence not in kinds:
            raise InputError(f"{word}: one value is needed, not a list; a matrix takes lists")
        return value
    if isinstance(value, int) and int in kinds:
        if value < 1:
            raise InputError(f"{word}: {value} is below 1")
        return value
    if float in kinds and not (isinstance(value, str) and str in kinds):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{word}: {str(value)[:60]!r} is not a number")
        return number
    if str in kinds or Sequence in kinds:
        return str(value)
    raise InputError(f"{word}: {str(value)[:60]!r} is not {_meant(kinds)}")


def _meant(kinds: set[Any]) -> str:
    names = {str: "text", float: "a number", int: "a whole number", Sequence: "names", dict: "a mapping"}
    return " or ".join(text for kind, text in names.items() if kind in kinds)


def search_signature(request: PlanRequest) -> str:
    """Return what tells requests apart whose searches differ; only the order of work depends on it."""
    fields = {
        "llm",
        "workload",
        "sla",
        "frameworks",
        "precisions",
        "kv_precisions",
        "modes",
        "disabled_features",
        "expert_traffic",
        "robust",
        "power_settings",
    }
    classes = [asked.model_dump_json(exclude={"demand_requests_per_s", "earns"}) for asked in request.classes]
    return "\n".join([request.model_dump_json(include=fields), *classes])


# --- price lists ---


def price_groups(
    catalog: Catalog, names: str | Sequence[str], rates: str | Sequence[str] | Mapping[str, float] | None = None
) -> tuple[PriceGroup, ...]:
    """Return the price lists that are compared, each read once.

    Args:
        catalog: Where names are looked up.
        names: Names and files, separated by commas or as a list; `aws+gcp` is both together.
        rates: Currency -> US dollars for one, for prices in other currencies.

    Raises:
        InputError: None named, one named twice, an unknown name, or a file of which nothing can be used.
    """
    said = [n.strip() for n in (names.split(",") if isinstance(names, str) else names)]
    said = [name for name in said if name]
    if not said:
        raise InputError("price lists: none named; name them like aws,gcp,aws+gcp,./mine.csv")
    dollars = parse_rates(rates)
    groups: list[PriceGroup] = []
    seen: dict[frozenset[str], str] = {}
    for name in said:
        parts = (name,) if Path(name).is_file() else tuple(part.strip() for part in name.split("+"))
        if not all(parts):
            raise InputError(f"price list {name!r}: a name is missing; lists that are bought from together: aws+gcp")
        known = make_request(catalog, power="1MW", prices=parts).prices
        if len(known) < len(parts):
            raise InputError(f"price list {name!r}: the same list twice")
        if frozenset(known) in seen:
            raise InputError(f"price lists: {seen[frozenset(known)]!r} and {name!r} are the same")
        seen[frozenset(known)] = name
        prices = catalog.price_list(known, rates=dollars)
        groups.append(
            PriceGroup(name=name, request_names=known, prices=prices, rates=dollars, content=price_content(prices))
        )
    return tuple(groups)


def price_content(prices: PriceList) -> str:
    """Return a hash of what a price list says."""
    digest = hashlib.sha256()
    for offer in prices.offers:
        digest.update(repr(offer).encode())
    return digest.hexdigest()


# --- cells ---


def cells_of(catalog: Catalog, scenarios: Sequence[Scenario], groups: Sequence[PriceGroup]) -> tuple[Cell, ...]:
    """Return a cell for every scenario under every price list.

    Raises:
        InputError: More than can be meant.
    """
    count = len(scenarios) * len(groups)
    if count > MOST_CELLS:
        raise InputError(f"{len(scenarios):,} scenarios x {len(groups):,} price lists: at most {MOST_CELLS:,} cells")
    version = __version__
    models = {c.llm: _model_content(c.llm) for s in scenarios for c in s.request.served_classes()}
    cells = []
    for scenario in scenarios:
        asked = scenario.request.model_dump(mode="json", exclude={"prices", "catalog"})
        own = [models[c.llm] for c in scenario.request.served_classes()]
        stem = json.dumps([KEY_LAYOUT, version, catalog.version, *own, asked], sort_keys=True)
        for group in groups:
            key = hashlib.sha256(f"{stem}\0{group.content}".encode()).hexdigest()[:32]
            request = scenario.request.model_copy(update={"prices": group.request_names, "rates": group.rates})
            cells.append(Cell(key=key, scenario=scenario.name, price_list=group.name, request=request))
    return tuple(cells)


def _model_content(llm: str) -> str:
    """Return a hash of a model's own file; models of the catalog are part of its version."""
    path = Path(llm)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
