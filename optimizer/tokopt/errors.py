"""What can go wrong in ways a user can mend; anything else is a defect."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_SHOWN = 24  # known names in an error: more are no help on one line


class TokoptError(Exception):
    """An expected outcome that a user can act on: one line, no traceback."""


class InputError(TokoptError):
    """Bad input: says what is wrong, where, and what is allowed."""


class CatalogError(InputError):
    """A catalog, price list or request file that does not say what it must."""


class InfeasibleError(TokoptError):
    """Proven infeasible: no deployment or fleet can meet the request."""


def not_one_of(what: str, name: str, allowed: Iterable[str]) -> InputError:
    """Return the error for a value that a short list does not have: the nearest that it has, and the whole list."""
    names = list(allowed)
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    near = difflib.get_close_matches(plain, names, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return InputError(f"{what}: {name!r} is not one of {', '.join(names)}{hint}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not in the catalog, with the nearest names that are."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=3, cutoff=0.5)
    near = [n for wanted in close for n in names if n.lower() == wanted]
    shown = ", ".join(names[:MOST_SHOWN]) + (f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {shown}"
    return InputError(f"unknown {kind} {name!r}; {hint}")
