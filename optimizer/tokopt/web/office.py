"""What stands between questions and processes: answers that are known, questions that are being answered, uploads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from tokopt.domain.plan_views import UploadCheck
from tokopt.domain.plans import PlanRequest

from .cache import Answers
from .problems import Problem
from .questions import UPLOADED, FrontierQuestion, PlanQuestion, looks_like_path, named_files
from .settings import Settings
from .uploads import Upload, Uploaded, UploadKind, Uploads, named_by_content, shown_name
from .workers import Work, Workers

# What a search depends on; questions that agree in it share one where the same process answers them.
SEARCHED = (
    *("model", "workload", "isl", "osl", "prefix_share", "sla"),
    *("frameworks", "precisions", "kv_precisions", "modes", "disable", "robust", "mixed_pools"),
)

# What the page asks when it is opened without a link.
FIRST = PlanQuestion(sla="tpot=50ms,p99", power="10MW")


class Office:
    """Answers questions. To be used from one event loop.

    Attributes:
        answered: How many answers processes have made.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix="tokopt-serve-"))  # of this user alone
        self.answers = Answers(settings.most_cached_bytes)
        self.uploads = Uploads(self.folder, most=settings.most_uploads, most_bytes=settings.most_uploads_bytes)
        self.workers = Workers(
            settings.most_solves,
            most_waiting=settings.most_waiting,
            longest_wait_s=settings.longest_wait_s,
            folder=self.folder,
            catalog=None if settings.catalog is None else str(Path(settings.catalog).resolve()),
            memory=settings.most_worker_bytes,
        )
        self.answered = 0
        self._running: dict[str, asyncio.Task[bytes]] = {}
        self._whole_reports = asyncio.Semaphore(max(settings.most_solves - 1, 1))
        self._checks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def warm_up(self) -> None:
        """Answer what the page asks first; whatever is wrong with it is said when it is asked."""
        with contextlib.suppress(Problem):
            await self.choices()
            await asyncio.gather(self.plan(FIRST), self.frontier(FrontierQuestion()))

    def close(self) -> None:
        """End the processes and remove what was uploaded."""
        self.workers.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- plans and frontiers ---

    async def plan(self, question: PlanQuestion) -> tuple[str, bytes]:
        """Return the key of a question's plan, and its view as JSON."""
        key, asked = self._plan_asked(question)
        return key, await self._answer(key, "plan", asked)

    def would_keep_from_others(self, question: PlanQuestion) -> bool:
        """Whether a question that nobody waits for yet would take a process that somebody may want."""
        key, _ = self._plan_asked(question)
        return key not in self.answers and not self.workers.at_leisure

    def _plan_asked(self, question: PlanQuestion) -> tuple[str, dict[str, Any]]:
        asked = self._checked(question) | {"time_limit_s": self.settings.solver_s}
        return key_of("plan", asked), asked

    async def request(self, request: PlanRequest) -> tuple[str, bytes]:
        """Return the key of a whole request's plan, and its view as JSON."""
        for field, name in named_files(request):
            if UPLOADED.fullmatch(name):
                self.uploads.touch(name)
            elif field == "catalog" or looks_like_path(name):
                raise Problem(
                    422, f"{field}: {name!r} looks like a file: names of the catalog are allowed", field=field
                )
        limit = min(request.time_limit_s, self.settings.solver_s)
        asked = request.model_copy(update={"time_limit_s": limit}).model_dump(mode="json")
        key = key_of("plan", {"request": asked})
        return key, await self._answer(key, "request", asked)

    async def frontier(self, question: FrontierQuestion) -> bytes:
        """Return the view of a question's frontier, as JSON."""
        asked = self._checked(question)
        return await self._answer(key_of("frontier", asked), "frontier", asked)

    def plan_view(self, key: str) -> bytes:
        """Return a plan's view that was asked for before.

        Raises:
            Problem: It is not kept (any more).
        """
        view = self.answers.get(key)
        if view is None or not key.startswith("plan-"):
            raise Problem(404, "this plan is not kept any more: ask for it again")
        return view

    async def compare(self, first: PlanQuestion, second: PlanQuestion) -> bytes:
        """Return two questions' plans side by side, as JSON."""
        (one, first_view), (other, second_view) = await asyncio.gather(self.plan(first), self.plan(second))
        views = {"first": first_view.decode(), "second": second_view.decode()}
        return await self._answer(key_of("compare", {"first": one, "second": other}), "compare", views)

    # --- what is made of a plan ---

    async def report(self, key: str, *, quick: bool) -> bytes:
        """Return a plan as an HTML report."""
        asked = {"view": self._with_uploads(self.plan_view(key)), "quick": quick}
        limit_s = self.settings.longest_solve_s if quick else self.settings.report_s
        return await self._answer(key_of("report", {"of": key, "quick": quick}), "report", asked, limit_s=limit_s)

    async def export(self, key: str, to: str) -> bytes:
        """Return a plan as the files of a serving tool, as JSON."""
        asked = {"view": self._with_uploads(self.plan_view(key)), "to": to}
        return await self._answer(key_of("export", {"of": key, "to": to}), "export", asked)

    async def choices(self) -> bytes:
        """Return what can be asked, as JSON."""
        return await self._answer(key_of("choices", {}), "choices", {})

    # --- uploads ---

    async def upload(self, content: bytes, kind: UploadKind, name: str) -> Uploaded:
        """Keep a file, if it is what it is said to be.

        Raises:
            Problem: It cannot be read, in one line.
        """
        upload = named_by_content(content, kind)
        lock = self._checks.setdefault(upload.file, asyncio.Lock())
        async with lock:  # the same file, sent twice at a time, is looked at one after the other
            return await self._checked_upload(upload, kind, name)

    async def _checked_upload(self, upload: Upload, kind: UploadKind, name: str) -> Uploaded:
        known = upload.file in self.uploads
        self.uploads.put(upload)
        try:
            work = Work(
                kind="upload",
                asked={"kind": kind.value, "file": upload.file},
                limit_s=self.settings.longest_solve_s,
            )
            check = UploadCheck.model_validate_json(await self.workers.ask(work))
        except BaseException as error:
            if not known:
                self.uploads.drop(upload.file)
            if isinstance(error, Problem) and error.status in (422, 500):
                why = error.detail.replace(f"{upload.file}: ", "").replace(upload.file, shown_name(name))
                raise Problem(422, why, field="upload") from None
            raise
        said = Uploaded(upload=upload.file, kind=kind, name=shown_name(name), bytes=len(upload.content), check=check)
        self.uploads.note(said)
        return said

    # --- how ---

    def _checked(self, question: FrontierQuestion) -> dict[str, object]:
        """Return a question as keywords, if the uploads that it names are here.

        Raises:
            Problem: One is not.
        """
        for name in (question.model, *question.prices):
            if UPLOADED.fullmatch(name):
                self.uploads.touch(name)
        return question.keywords()

    def _with_uploads(self, view: bytes) -> str:
        """Return a plan's view, if the uploads that it names are here.

        Raises:
            Problem: One is not.
        """
        text = view.decode()
        for name in set(UPLOADED.findall(text)):
            self.uploads.touch(name)
        return text

    async def _answer(self, key: str, kind: str, asked: dict[str, Any], *, limit_s: float | None = None) -> bytes:
        """Return an answer that is known, or the one that is being made, or have it made.

        Who has asked may leave meanwhile: the answer is made and kept all the same.
        """
        known = self.answers.get(key)
        if known is not None:
            return known
        task = self._running.get(key)
        if task is None:
            about = key_of("search", {name: asked.get(name) for name in SEARCHED}) if kind == "plan" else kind
            work = Work(kind=kind, asked=asked, about=about, limit_s=limit_s or self.settings.longest_solve_s)
            task = self._running[key] = asyncio.create_task(self._made(key, work))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to hear it
        return await asyncio.shield(task)

    async def _made(self, key: str, work: Work) -> bytes:
        try:
            # Whole reports take long: they leave a process to others, where there are several.
            long = work.limit_s > self.settings.longest_solve_s
            async with self._whole_reports if long else contextlib.nullcontext():
                answer = await self.workers.ask(work)
            self.answered += 1
            self.answers.put(key, answer)
            return answer
        finally:
            del self._running[key]


def key_of(kind: str, asked: dict[str, Any]) -> str:
    """Return the name of an answer: of what kind it is, and a hash of the question."""
    text = json.dumps(asked, sort_keys=True, ensure_ascii=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
