"""What went wrong, as one line and one JSON document (RFC 9457)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"
LONGEST_LINE = 500
TITLES = {
    400: "Bad request",
    401: "A token is needed",
    403: "Refused",
    404: "Not found",
    405: "Not allowed here",
    408: "Too slow",
    413: "Too large",
    415: "Wrong kind of content",
    421: "Wrong host",
    422: "The question cannot be understood",
    500: "A defect",
    501: "Not available",
    503: "Busy",
    504: "It took too long",
}
# Begin of a message -> the field of the question that it is about.
ABOUT = (
    ("unknown language model", "model"),
    ("unknown workload", "workload"),
    ("unknown accelerator", "gpus"),
    ("unknown price list", "prices"),
    ("price lists", "prices"),
    ("unknown framework", "frameworks"),
    ("unknown precision", "precisions"),
    ("unknown KV precision", "kv_precisions"),
    ("input length", "isl"),
    ("output length", "osl"),
    ("prefix share", "prefix_share"),
    ("nothing says how large", "power"),
)
OPTIONS = {"prices": "prices", "gpu": "gpus", "without": "exclude", "market": "markets", "region": "regions"}
OPTIONS |= {"budget": "budget_usd_per_hour", "mode": "modes"}


class ProblemDocument(BaseModel):
    """An error, in the words of RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="One line: what is wrong, where, and what is allowed.")
    field: str | None = Field(default=None, description="The field of the question that it is about, where it is one.")


class Problem(Exception):
    """An expected refusal: a status and one line."""

    def __init__(self, status: int, detail: str, *, field: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = one_line(detail)
        self.field = field
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        found = {"Cache-Control": "no-store"}
        if self.retry_after_s is not None:
            found["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found

    def body(self) -> bytes:
        """Return the document."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
        }
        if self.field is not None:
            document["field"] = self.field
        return json.dumps(document, ensure_ascii=False).encode()


def one_line(text: str) -> str:
    """Return a text on one line, without what terminals and pages take for commands, and not too long."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(plain.split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


def of_input(message: str, price_lists: Sequence[str] = ()) -> Problem:
    """Return the problem of bad input: options of the command line become fields of the question."""
    message = one_line(message)
    field = next((name for begin, name in ABOUT if message.startswith(begin)), None)
    option = re.match(r"--([a-z][a-z-]*)", message)
    if option:
        field = OPTIONS.get(option[1], option[1].replace("-", "_"))
    if field is None and any(message.startswith(f"{name}: ") for name in price_lists):
        field = "prices"
    return Problem(422, re.sub(r"--([a-z][a-z-]*)", r"\1", message), field=field)
