"""The JSON API, version 1."""

from __future__ import annotations

import io
import zipfile
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from tokopt.domain.exporting import Export, Target
from tokopt.domain.plan_views import Choices, FrontierView, PlansCompared, PlanView
from tokopt.domain.plans import Plan

from .office import Office
from .problems import Problem
from .questions import FrontierQuestion, PlanQuestion, TwoQuestions, WholeRequest
from .settings import Settings
from .uploads import Uploaded, UploadKind

JSON = "application/json"
ANY_DAY = (2026, 1, 1, 0, 0, 0)  # in archives: the same plan gives the same bytes

router = APIRouter(prefix="/api/v1", tags=["v1"])
Key = Annotated[str, Path(pattern=r"^plan-[0-9a-f]{32}$", description="Of the header Plan-Key of an answer.")]


def _office(request: Request) -> Office:
    office: Office = request.app.state.office
    return office


def _json(content: bytes, **headers: str) -> Response:
    return Response(content, media_type=JSON, headers={"Cache-Control": "no-store", **headers})


def _attached(content: bytes, kind: str, name: str) -> Response:
    shown = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, media_type=kind, headers=shown)


@router.get("/options", response_model=Choices)
async def options(request: Request) -> Response:
    """List what a question can name: models, workloads, accelerators, price lists, objectives."""
    return _json(await _office(request).choices())


class Limits(BaseModel):
    """How much may be sent, and how long an answer may take."""

    longest_solve_s: float
    most_upload_bytes: int
    most_json_bytes: int
    most_solves: int


@router.get("/limits")
async def limits(request: Request) -> Limits:
    """Say how much may be sent, and how long an answer may take."""
    settings: Settings = request.app.state.settings
    return Limits(**{name: getattr(settings, name) for name in Limits.model_fields})


@router.post("/plan", response_model=PlanView, responses={204: {"description": "Asked ahead, and not now."}})
async def plan(request: Request, question: PlanQuestion, ahead: bool = False) -> Response:
    """Find the fleet with the lowest cost per token, as `tokopt plan` does. Infeasible is an answer, too.

    With `ahead`, only where the answer is known or nothing else is to do: for what may be asked next.
    """
    if ahead and _office(request).would_keep_from_others(question):
        return Response(status_code=204)
    key, view = await _office(request).plan(question)
    return _json(view, **{"Plan-Key": key})


@router.post("/solve", response_model=PlanView)
async def solve(request: Request, asked: WholeRequest) -> Response:
    """Solve a whole request, such as that of a plan file."""
    key, view = await _office(request).request(asked)
    return _json(view, **{"Plan-Key": key})


@router.post("/frontier", response_model=FrontierView)
async def frontier(request: Request, question: FrontierQuestion) -> Response:
    """Return tokens/s/GPU against tokens/s/user of every accelerator that has a price."""
    return _json(await _office(request).frontier(question))


@router.post("/compare", response_model=PlansCompared)
async def compare(request: Request, questions: TwoQuestions) -> Response:
    """Set two plans side by side."""
    return _json(await _office(request).compare(questions.first, questions.second))


@router.post(
    "/uploads",
    response_model=Uploaded,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(
    request: Request,
    kind: UploadKind,
    name: Annotated[str, Query(max_length=300, description="What the file is called; only shown.")] = "",
) -> Uploaded:
    """Bring a price list (CSV or Parquet) or a Hugging Face config.json; the body is the file's bytes.

    Questions name it by the answer's `upload`, among `prices` or as `model`, until newer ones have taken its place.
    """
    return await _office(request).upload(await request.body(), kind, name)


@router.get("/uploads/{upload}", response_model=Uploaded)
async def uploaded(
    request: Request, upload: Annotated[str, Path(pattern=r"^upload-[0-9a-f]{16}\.(json|csv|parquet)$")]
) -> Uploaded:
    """Say what an uploaded file holds, as long as it is kept."""
    return _office(request).uploads.said_of(upload)


@router.get("/plans/{key}", response_model=Plan)
async def plan_json(request: Request, key: Key) -> Response:
    """Download a plan, as `tokopt plan --out` writes it."""
    view = PlanView.model_validate_json(_office(request).plan_view(key))
    return _attached((view.plan.model_dump_json(indent=2) + "\n").encode(), JSON, "plan.json")


@router.get("/plans/{key}/report", response_class=Response, responses={200: {"content": {"text/html": {}}}})
async def report(request: Request, key: Key, quick: bool = True) -> Response:
    """Download a plan as one HTML page; `quick=false` adds why, and other price lists, which takes a minute."""
    page = await _office(request).report(key, quick=quick)
    return _attached(page, "text/html; charset=utf-8", "report.html")


@router.get("/plans/{key}/exports/{to}", response_model=Export)
async def export(request: Request, key: Key, to: Target) -> Response:
    """Return a plan as the files that a serving tool takes."""
    return _json(await _office(request).export(key, to.value))


@router.get(
    "/plans/{key}/exports/{to}/zip", response_class=Response, responses={200: {"content": {"application/zip": {}}}}
)
async def export_zip(request: Request, key: Key, to: Target) -> Response:
    """Download the files of an export, with what they do not say in NOTES.txt."""
    found = Export.model_validate_json(await _office(request).export(key, to.value))
    return _attached(_zipped(found), "application/zip", f"{to.value}.zip")


def _zipped(export: Export) -> bytes:
    content = io.BytesIO()
    notes = "".join(f"- {note}\n" for note in export.notes)
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in export.files:
            if "/" in file.name or "\\" in file.name:
                raise Problem(500, "an export names a folder")
            entry = zipfile.ZipInfo(file.name, ANY_DAY)
            entry.external_attr = (0o755 if file.executable else 0o644) << 16
            archive.writestr(entry, file.content)
        if notes:
            archive.writestr(zipfile.ZipInfo("NOTES.txt", ANY_DAY), notes)
    return content.getvalue()
