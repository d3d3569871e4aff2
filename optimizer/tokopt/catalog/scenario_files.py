"""Scenario files: named sets of options of a plan, and products of lists of them.

    defaults: {model: llama-3.1-70b, workload: chat}    # what every scenario starts from
    scenarios:
      evening peak: {demand: 400req/s, sla: 40ms}
    matrix:
      demand: [50req/s, 400req/s]
      sla: [30ms, 50ms]
      exclude: [{demand: 400req/s, sla: 30ms}]
      include: [{demand: 1000req/s, sla: 100ms, name: overnight}]

`include` and `exclude` mean what they mean in the matrices of continuous integration: an entry of `exclude` drops every
combination that agrees with it; an entry of `include` adds its other keys to every combination that agrees with it in
the lists' keys, and is a scenario of its own where there is none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokopt.catalog.faults import kind_of
from tokopt.catalog.files import read_yaml
from tokopt.errors import CatalogError, InputError, unknown_name

SECTIONS = ("defaults", "scenarios", "matrix")
SWITCHES = ("mixed_pools",)  # options that are on or off
YES_OR_NO = {True: "yes", False: "no"}
MOST_SCENARIOS = 100_000
LONGEST_NAME = 200
NAME = "name"  # key of an included scenario that names it
Options = dict[str, Any]
Word = Callable[[str], str]  # a key as it is written -> the option that it means; raises InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioText:
    """A scenario as a file states it: options of a plan under their own names, values as they are written."""

    name: str
    options: Options


def read_scenarios(source: Path | Mapping[str, Any], word: Word) -> tuple[ScenarioText, ...]:
    """Return the scenarios of a file, or of a mapping that is laid out like one.

    Args:
        source: The file, or its content.
        word: Says which option a key means, or raises InputError with what is allowed.

    Raises:
        CatalogError: In one line, with the place: not YAML, unknown or repeated keys, values of a kind that no option
            has, names that stand for two scenarios, more combinations than can be meant.
    """
    said = str(source) if isinstance(source, Path) else "scenarios"
    content = read_yaml(source) if isinstance(source, Path) else source
    if not isinstance(content, Mapping) or not content:
        raise CatalogError(f"{said}: a mapping with {', '.join(SECTIONS)} is needed, not {kind_of(content)}")
    for key in content:
        if key not in SECTIONS:
            raise CatalogError(f"{said}: {unknown_name('section', _shown(key), SECTIONS)}")
    defaults = _options(content.get("defaults") or {}, word, f"{said}: defaults")
    found = [*_named(content.get("scenarios"), word, said), *_combined(content.get("matrix"), word, said)]
    if not found:
        raise CatalogError(f"{said}: no scenario in it; scenarios or a matrix are needed")
    names: set[str] = set()
    for scenario in found:
        if scenario.name in names:
            raise CatalogError(f"{said}: two scenarios are called {scenario.name!r}")
        names.add(scenario.name)
    # A value of nothing leaves out what the defaults say.
    return tuple(
        ScenarioText(
            name=s.name, options={key: v for key, v in (defaults | s.options).items() if v is not None and v != []}
        )
        for s in found
    )


def _named(section: Any, word: Word, said: str) -> Iterator[ScenarioText]:
    if section is None:
        return
    if not isinstance(section, Mapping):
        raise CatalogError(f"{said}: scenarios: a mapping of names to options is needed, not {kind_of(section)}")
    if len(section) > MOST_SCENARIOS:
        raise CatalogError(f"{said}: {len(section):,} scenarios; at most {MOST_SCENARIOS:,}")
    for name, options in section.items():
        checked = _name(name, f"{said}: scenarios")
        yield ScenarioText(name=checked, options=_options(options or {}, word, f"{said}: scenario {checked!r}"))


def _name(name: Any, where: str) -> str:
    text = " ".join(str(name).split()) if isinstance(name, (str, int, float)) and not isinstance(name, bool) else ""
    if not text or len(text) > LONGEST_NAME or not text.isprintable():
        raise CatalogError(f"{where}: {_shown(name)!r} is no name; one line of up to {LONGEST_NAME} characters is")
    return text


def _options(section: Any, word: Word, where: str) -> Options:
    """Return options under the names that they mean, every value of a kind that an option can have."""
    if not isinstance(section, Mapping):
        raise CatalogError(f"{where}: a mapping of options to values is needed, not {kind_of(section)}")
    found: Options = {}
    for key, value in section.items():
        option = _option(key, word, where)
        if option in found:
            raise CatalogError(f"{where}: {key}: given twice")
        found[option] = _value(value, f"{where}: {key}", switch=option in SWITCHES)
    return found


def _option(key: Any, word: Word, where: str) -> str:
    if not isinstance(key, str):
        raise CatalogError(f"{where}: {_shown(key)!r} is not an option")
    try:
        return word(key)
    except InputError as error:
        raise CatalogError(f"{where}: {error}") from None


def _value(value: Any, where: str, *, switch: bool = False) -> Any:
    """Return a value: text, a number, a list of texts, or a flat mapping; nothing else says anything.

    YAML reads an unquoted yes as true; of a switch it becomes the word again, which titles show.
    """
    if switch and isinstance(value, bool):
        return YES_OR_NO[value]
    if isinstance(value, bool):
        raise CatalogError(f"{where}: {str(value).lower()} is neither text nor a number; put it in quotes")
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CatalogError(f"{where}: {value:g} is not a finite number")
        return value
    if isinstance(value, Mapping):
        if all(isinstance(k, str) and isinstance(v, int) and not isinstance(v, bool) for k, v in value.items()):
            return dict(value)
        raise CatalogError(f"{where}: a mapping of names to whole numbers is meant, like {{h200_sxm: 64}}")
    if isinstance(value, Sequence):
        if all(isinstance(item, str) and item.strip() for item in value):
            if len(set(value)) < len(value):
                raise CatalogError(f"{where}: the same name twice")
            return list(value)
        raise CatalogError(f"{where}: a list of names is meant, like [aws, gcp]")
    raise CatalogError(f"{where}: {_shown(value)!r} is neither text nor a number; put it in quotes")


# --- the matrix ---


def _combined(section: Any, word: Word, said: str) -> list[ScenarioText]:
    """Return the scenarios of the product of a matrix's lists."""
    if section is None:
        return []
    where = f"{said}: matrix"
    if not isinstance(section, Mapping):
        raise CatalogError(f"{where}: a mapping of options to lists is needed, not {kind_of(section)}")
    lists = {k: values for k, values in section.items() if k not in ("include", "exclude")}
    named = [(_option(key, word, where), f"{where}: {key}", values) for key, values in lists.items()]
    axes = {option: _axis(values, here, switch=option in SWITCHES) for option, here, values in named}
    if len(axes) < len(lists):
        raise CatalogError(f"{where}: two lists are of the same option")
    excluded = [options for options, _ in _entries(section.get("exclude"), word, f"{where}: exclude", axes)]
    included = _entries(section.get("include"), word, f"{where}: include", None)
    count = math.prod(len(values) for values in axes.values())
    if count > MOST_SCENARIOS:
        raise CatalogError(f"{where}: {count:,} combinations; at most {MOST_SCENARIOS:,}")
    combinations = (
        [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())] if axes else []
    )
    dropped: set[int] = set()
    for entry in excluded:
        agreeing = {n for n, c in enumerate(combinations) if _agree(entry, c)}
        if not agreeing:
            raise CatalogError(f"{where}: exclude: {_title(entry)}: no combination agrees with it")
        dropped |= agreeing
    kept = [c for n, c in enumerate(combinations) if n not in dropped]
    return _with_included([(_title(c), c) for c in kept], included, axes, where)


def _with_included(
    kept: list[tuple[str, Options]],
    included: list[tuple[Options, str | None]],
    axes: Mapping[str, list[Any]],
    where: str,
) -> list[ScenarioText]:
    scenarios = [(name, dict(options)) for name, options in kept]
    added: list[tuple[str, Options]] = []
    for entry, name in included:
        shared = {key: value for key, value in entry.items() if key in axes}
        extra = {key: value for key, value in entry.items() if key not in axes}
        agreeing = [place for place, (_, c) in enumerate(kept) if _agree(shared, c)] if extra and not name else []
        for place in agreeing:
            old, options = scenarios[place]
            if any(key in options and options[key] != value for key, value in extra.items()):
                raise CatalogError(f"{where}: include: {_title(entry)}: contradicts an entry before it")
            scenarios[place] = f"{old} / {_title(extra)}", options | extra
        if not agreeing:
            added.append((name or _title(entry), entry))
    return [ScenarioText(name=_name(name, where), options=options) for name, options in (*scenarios, *added)]


def _axis(values: Any, where: str, *, switch: bool = False) -> list[Any]:
    if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence):
        raise CatalogError(f"{where}: a list of values is needed, not {kind_of(values)}")
    if not values:
        raise CatalogError(f"{where}: the list is empty; at least one value is needed")
    if len(values) > MOST_SCENARIOS:
        raise CatalogError(f"{where}: {len(values):,} values; at most {MOST_SCENARIOS:,}")
    found: list[Any] = []
    seen: set[str] = set()
    for value in values:
        checked = _value(value, where, switch=switch)
        written = _text(checked)
        if written in seen:
            raise CatalogError(f"{where}: {_shown(written)} is in the list twice")
        seen.add(written)
        found.append(checked)
    return found


def _entries(
    section: Any, word: Word, where: str, axes: Mapping[str, list[Any]] | None
) -> list[tuple[Options, str | None]]:
    """Return the entries of `include`, or of `exclude` where `axes` are given, which an entry must not leave."""
    if section is None:
        return []
    if isinstance(section, (str, Mapping)) or not isinstance(section, Sequence):
        raise CatalogError(f"{where}: a list of mappings is needed, not {kind_of(section)}")
    found = []
    for number, entry in enumerate(section, 1):
        here = f"{where}: entry {number}"
        if not isinstance(entry, Mapping) or not entry:
            raise CatalogError(f"{here}: a mapping of options to values is needed, not {kind_of(entry)}")
        plain = {key: value for key, value in entry.items() if key != NAME or axes is not None}
        options = _options(plain, word, here)
        for key in options:
            if axes is not None and key not in axes:
                raise CatalogError(f"{here}: {key} is not one of the matrix's lists: {', '.join(axes) or 'none'}")
        name = _name(entry[NAME], f"{here}: name") if NAME in entry and axes is None else None
        found.append((options, name))
    return found


def _agree(entry: Options, combination: Options) -> bool:
    return all(key in combination and _text(combination[key]) == _text(value) for key, value in entry.items())


def _title(options: Options) -> str:
    """Return a readable name: values one after the other, with their option where the value alone says little."""
    return " / ".join(
        _text(value)
        if isinstance(value, list) or (isinstance(value, str) and not value.isdecimal() and key not in SWITCHES)
        else f"{key.replace('_', '-')}={_text(value)}"
        for key, value in options.items()
    )


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{count}" for key, count in value.items()) or "none"
    return ",".join(value) if isinstance(value, list) else str(value)


def _shown(value: Any) -> str:
    """Return a value for an error message: short, and of nested values only what they are."""
    if isinstance(value, (str, int, float)):
        text = str(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return kind_of(value)
