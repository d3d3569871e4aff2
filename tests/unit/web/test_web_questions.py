"""Names that might lead to files, hosts, kept answers and uploads: what needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tokopt.api import load_catalog, make_request
from tokopt.web.cache import Answers
from tokopt.web.problems import Problem, of_input, one_line
from tokopt.web.questions import PlanQuestion, looks_like_path, named_files
from tokopt.web.settings import is_loopback
from tokopt.web.uploads import UploadKind, Uploads, named_by_content, shown_name

PATHS = [
    "etc/../passwd",
    "a/b/c",
    "folder/config.json",
    ".hidden/x",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\windows\\system.ini",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/etc",
    "prices.csv",
    "./mine.yaml",
    "model.JSON",
    "list.parquet",
    "~root",
    ".",
    "..",
    "",
    "a\x00b",
    "upload-0123456789abcdef.csv/../x",
]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("field", ["model", "workload", "prices", "gpus", "exclude", "inventory"])
def test_what_looks_like_a_file_is_refused(name: str, field: str) -> None:
    value = {"inventory": {name: 1}, "model": name, "workload": name}.get(field, [name])
    with pytest.raises(ValidationError, match="looks like a file"):
        PlanQuestion.model_validate({field: value})


def test_names_of_the_catalog_do_not_look_like_files() -> None:
    catalog = load_catalog()
    names = [*catalog.llms, *catalog.workloads, *catalog.accelerators, *catalog.price_list_names, *catalog.ownership]
    assert not [name for name in names if looks_like_path(name)]
    for llm in catalog.llms.values():
        for alias in llm.aliases:
            assert PlanQuestion(model=alias).model == alias
    assert PlanQuestion(prices=("upload-0123456789abcdef.csv",), model="upload-0123456789abcdef.json")


def test_a_request_tells_every_name_that_a_reader_of_files_might_see() -> None:
    catalog = load_catalog()
    request = make_request(catalog, power="1MW", prices="aws,gcp")
    named = set(named_files(request.model_copy(update={"catalog": "/tmp"})))
    assert named == {("prices", "aws"), ("prices", "gcp"), ("llm", "deepseek-r1"), ("catalog", "/tmp")}


def test_a_question_says_only_what_was_said() -> None:
    assert PlanQuestion(power="1MW").keywords()["power"] == "1MW"
    assert "demand" not in PlanQuestion(power="1MW").keywords()
    with pytest.raises(ValidationError):
        PlanQuestion.model_validate({"catalog": "/etc"})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("127.8.8.8", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("::", False),
        ("localhost.example.org", False),
    ],
)
def test_addresses_of_this_machine_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_answers_are_bounded_by_what_they_take_and_the_oldest_goes_first() -> None:
    kept = Answers(most_bytes=10)
    kept.put("a", b"12345")
    kept.put("b", b"1234")
    assert kept.get("a") == b"12345"  # used: now b is the oldest
    kept.put("c", b"123")
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (b"12345", None, b"123")
    kept.put("a", b"1")
    assert kept.kept_bytes == 4
    kept.put("huge", b"x" * 11)
    assert "huge" not in kept and kept.kept_bytes == 4


def test_uploads_have_names_of_our_own_and_are_few(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, most=2, most_bytes=100)
    files = [named_by_content(f"a,b\n{n}".encode(), UploadKind.PRICES) for n in range(3)]
    for each in files:
        uploads.put(each)
    assert [each.file in uploads for each in files] == [False, True, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(each.file for each in files[1:])
    with pytest.raises(Problem, match="not here any more"):
        uploads.touch(files[0].file)
    uploads.touch(files[1].file)
    uploads.put(files[0])
    assert files[1].file in uploads and files[2].file not in uploads


def test_uploads_together_stay_below_their_limit(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, most=9, most_bytes=25)
    for n in range(5):
        uploads.put(named_by_content(b"x" * 9 + bytes([65 + n]), UploadKind.PRICES))
    assert len(uploads) == 2


def test_kinds_of_uploads_are_told_by_content() -> None:
    assert named_by_content(b"PAR1...", UploadKind.PRICES).file.endswith(".parquet")
    assert named_by_content(b"a,b", UploadKind.PRICES).file.endswith(".csv")
    assert named_by_content(b"{}", UploadKind.MODEL).file.endswith(".json")
    same = {named_by_content(b"{}", kind).file.partition(".")[0] for kind in UploadKind}
    assert len(same) == 2
    for bad in (b"", b"{", b"[" * 100_000):
        with pytest.raises(Problem):
            named_by_content(bad, UploadKind.MODEL)


@pytest.mark.parametrize(
    ("given", "shown"),
    [("../../x.csv", "x.csv"), ("C:\\a\\b.csv", "b.csv"), ("", "upload"), ("a\n\x1b[31mb", "a [31mb")],
)
def test_what_clients_call_files_is_only_shown(given: str, shown: str) -> None:
    assert shown_name(given) == shown
    assert len(shown_name("x" * 1000)) <= 60


@pytest.mark.parametrize(
    ("message", "field", "said"),
    [
        ("--power: 'x' is not a power; write it like 10MW", "power", "power: 'x' is not a power; write it like 10MW"),
        ("--budget: 0 must be above zero", "budget_usd_per_hour", "budget: 0 must be above zero"),
        ("unknown language model 'x'; did you mean y?", "model", "unknown language model 'x'; did you mean y?"),
        ("aws: no price can be used", "prices", "aws: no price can be used"),
        ("something else", None, "something else"),
    ],
)
def test_errors_name_their_field(message: str, field: str | None, said: str) -> None:
    problem = of_input(message, ("aws",))
    assert (problem.status, problem.field, problem.detail) == (422, field, said)


def test_lines_are_single_and_short() -> None:
    assert one_line("a\n\tb\x07c") == "a b c"
    assert len(one_line("x" * 5000)) == 500
