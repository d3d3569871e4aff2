"""What processes do for the server: each kind of work, from keywords to the bytes of an answer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from tokopt.api import frontier, load_catalog, make_request, solve_request
from tokopt.api.planning import SharedSearch
from tokopt.api.viewing import (
    check_model,
    check_price_file,
    choices,
    compare_plans,
    published_model,
    view_frontier,
    view_plan,
)
from tokopt.domain.plan_views import PlanView
from tokopt.domain.plans import Plan, PlanRequest


class Desk:
    """What a process keeps between questions: the catalog, and the searches that sliders use again."""

    def __init__(self, catalog: str | None) -> None:
        self.catalog = load_catalog(catalog)
        self.search = SharedSearch()
        self._here = json.dumps(os.getcwd() + os.sep)[1:-1]

    def do(self, kind: str, asked: dict[str, Any]) -> bytes:
        """Return the answer to a question, in which nothing says where our files are.

        Raises:
            InputError: What a user can mend.
        """
        return self.without_place(KINDS[kind](self, asked)).encode()

    def without_place(self, text: str) -> str:
        """Return a text with the uploads' own names in place of their paths."""
        return text.replace(self._here, "")

    def with_model(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return keywords in which the model goes by the catalog's name: what publishers call it has a slash.

        Raises:
            InputError: There is no such model.
        """
        model = asked.get("model", "")
        return asked | {"model": published_model(self.catalog, model)} if "/" in model else asked

    def plan(self, request: PlanRequest) -> str:
        """Return the view of a request's plan, as JSON."""
        plan = solve_request(request, self.catalog, search=self.search)
        return view_plan(plan, self.catalog).model_dump_json()


def _plan(desk: Desk, asked: dict[str, Any]) -> str:
    return desk.plan(make_request(desk.catalog, **desk.with_model(asked)))


def _request(desk: Desk, asked: dict[str, Any]) -> str:
    return desk.plan(PlanRequest.model_validate(asked))


def _frontier(desk: Desk, asked: dict[str, Any]) -> str:
    return view_frontier(frontier(catalog=desk.catalog, **desk.with_model(asked)), desk.catalog).model_dump_json()


def _compare(desk: Desk, asked: dict[str, Any]) -> str:
    first, second = (PlanView.model_validate_json(asked[side]).plan for side in ("first", "second"))
    return compare_plans(first, second, desk.catalog).model_dump_json()


def _report(desk: Desk, asked: dict[str, Any]) -> str:
    from tokopt.api import report_html

    return report_html(_plan_of(asked), catalog=desk.catalog, quick=asked["quick"])


def _export(desk: Desk, asked: dict[str, Any]) -> str:
    from tokopt.api import export_plan

    return export_plan(_plan_of(asked), to=asked["to"], catalog=desk.catalog).model_dump_json()


def _plan_of(asked: dict[str, Any]) -> Plan:
    return PlanView.model_validate_json(asked["view"]).plan


def _upload(desk: Desk, asked: dict[str, Any]) -> str:
    check = check_model if asked["kind"] == "model" else check_price_file
    path = os.path.join(os.getcwd(), asked["file"])
    return check(path, desk.catalog).model_dump_json()


def _choices(desk: Desk, _: dict[str, Any]) -> str:
    return choices(desk.catalog).model_dump_json()


KINDS: dict[str, Callable[[Desk, dict[str, Any]], str]] = {
    "plan": _plan,
    "request": _request,
    "frontier": _frontier,
    "compare": _compare,
    "report": _report,
    "export": _export,
    "upload": _upload,
    "choices": _choices,
}
