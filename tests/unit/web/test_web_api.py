"""The JSON API: the same answers as the Python package, and refusals in one line."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

import tokopt
from tokopt.domain.comparisons import Frontier
from tokopt.domain.plan_views import PlansCompared, PlanView
from tokopt.domain.plans import Plan
from tokopt.web.app import create_app
from tokopt.web.settings import Settings

V1 = "/api/v1"
JSON = {"Content-Type": "application/json"}
SMALL: dict[str, Any] = {"model": "qwen3-8b", "gpus": ["h100_sxm"], "workload": "chat", "power": "30kW", "sla": "50ms"}
CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "tie_word_embeddings": False,
}
PRICES = "accelerator,accelerator_count,usd_per_hour\nh100_sxm,8,16\n"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Settings(most_solves=1)), base_url="http://localhost") as made:
        yield made


def problem(response: Any, *status: int) -> dict[str, Any]:
    """Return a refusal, which is one line whatever it is about."""
    assert response.status_code in status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    found: dict[str, Any] = response.json()
    assert found["status"] == response.status_code and found["detail"] and "\n" not in found["detail"]
    assert "Traceback" not in response.text and "/tmp" not in response.text
    return found


def plan_of(client: TestClient, **asked: Any) -> tuple[Plan, str]:
    response = client.post(f"{V1}/plan", json=SMALL | asked)
    assert response.status_code == 200, response.text
    return PlanView.model_validate_json(response.content).plan, response.headers["plan-key"]


# --- answers ---


def test_a_plan_is_that_of_the_package(client: TestClient) -> None:
    plan, key = plan_of(client)
    assert plan == tokopt.plan(**SMALL, time_limit_s=15.0)
    assert Plan.model_validate_json(client.get(f"{V1}/plans/{key}").content) == plan


def test_a_plan_file_s_request_can_be_solved_again(client: TestClient) -> None:
    plan, _ = plan_of(client)
    response = client.post(f"{V1}/solve", content=plan.request.model_dump_json(), headers=JSON)
    assert PlanView.model_validate_json(response.content).plan == plan


def test_a_frontier_is_that_of_the_package(client: TestClient) -> None:
    asked = {name: SMALL[name] for name in ("model", "gpus", "workload")}
    found = client.post(f"{V1}/frontier", json=asked).json()
    assert Frontier.model_validate(found["frontier"]) == tokopt.frontier(**asked)
    assert len(found["setups"]) == len(found["frontier"]["points"]) > 0


def test_the_view_says_what_the_plan_holds(client: TestClient) -> None:
    view = client.post(f"{V1}/plan", json=SMALL).json()
    assert view["sentence"].count(".") and "H100" in view["sentence"]
    cost = next(each for each in view["headline"] if each["name"] == "usd_per_million_output_tokens")
    assert cost["value"] == view["plan"]["usd_per_million_output_tokens"]
    assert cost["interval"] == view["plan"]["interval"]["usd_per_million_output_tokens"]
    item, point = view["plan"]["fleet"][0], view["points"][0]
    assert point["output_tokens_per_s_per_gpu"] == pytest.approx(item["output_tokens_per_s"] / item["gpus"])
    assert point["tokens_per_s_per_user"] == pytest.approx(1000 / item["tpot_ms"]["mean"])


def test_infeasible_is_an_answer(client: TestClient) -> None:
    plan, key = plan_of(client, sla="0.1ms")
    assert plan.status == "infeasible" and plan.nearest_feasible
    problem(client.get(f"{V1}/plans/{key}/exports/vllm"), 422)


def test_two_plans_are_compared(client: TestClient) -> None:
    second = SMALL | {"power": "60kW"}
    found = PlansCompared.model_validate_json(
        client.post(f"{V1}/compare", json={"first": SMALL, "second": second}).content
    )
    assert found.first.plan == plan_of(client)[0] and found.second.plan == plan_of(client, power="60kW")[0]
    assert [each.field for each in found.asked] == ["power_kw"]
    hourly = next(each for each in found.figures if each.name == "usd_per_hour")
    assert hourly.first and hourly.second
    assert hourly.change_percent == pytest.approx((hourly.second / hourly.first - 1) * 100)
    (machine,) = found.machines
    assert (machine.first_gpus, machine.second_gpus) == tuple(
        sum(item.gpus for item in view.plan.fleet) for view in (found.first, found.second)
    )
    same = client.post(f"{V1}/compare", json={"first": SMALL, "second": SMALL}).json()
    assert not same["asked"] and all(each["change_percent"] == 0 for each in same["figures"])


def test_answers_are_kept(client: TestClient) -> None:
    office = client.app.state.office  # type: ignore[attr-defined]
    first = client.post(f"{V1}/plan", json=SMALL)
    made = office.answered
    again = client.post(f"{V1}/plan", json=SMALL)
    assert again.content == first.content and office.answered == made


def test_what_is_asked_ahead_waits_for_nobody(client: TestClient) -> None:
    plan_of(client)
    assert client.post(f"{V1}/plan?ahead=true", json=SMALL).status_code == 200  # it is known
    unknown = client.post(f"{V1}/plan?ahead=true", json=SMALL | {"power": "77kW"})
    assert unknown.status_code == 204 and not unknown.content  # the only process is kept for who comes


def test_downloads(client: TestClient) -> None:
    plan, key = plan_of(client)
    found = client.get(f"{V1}/plans/{key}/exports/vllm").json()
    assert found == json.loads(tokopt.export_plan(plan, to="vllm").model_dump_json())
    packed = client.get(f"{V1}/plans/{key}/exports/vllm/zip")
    archive = zipfile.ZipFile(io.BytesIO(packed.content))
    assert {f["name"] for f in found["files"]} <= set(archive.namelist())
    assert archive.read(found["files"][0]["name"]).decode() == found["files"][0]["content"]
    assert "attachment" in packed.headers["content-disposition"]


def test_the_report_is_that_of_the_package(client: TestClient) -> None:
    pytest.importorskip("jinja2")
    plan, key = plan_of(client)
    assert client.get(f"{V1}/plans/{key}/report").text == tokopt.report_html(plan, quick=True)


def test_what_can_be_asked_is_listed(client: TestClient) -> None:
    found = client.get(f"{V1}/options").json()
    catalog = tokopt.load_catalog()
    assert {each["name"] for each in found["models"]} == set(catalog.llms)
    listed = {each["name"] for each in found["price_lists"]}
    assert listed == {*catalog.price_list_names, *(f"ownership-{name}" for name in catalog.ownership)}
    assert "vllm" in found["exports"] and "profit" not in [each["name"] for each in found["objectives"]]


# --- files ---


def test_a_price_list_can_be_brought(client: TestClient) -> None:
    response = client.post(f"{V1}/uploads?kind=prices&name=../mine.csv", content=PRICES)
    found = response.json()
    assert found["name"] == "mine.csv" and found["check"]["summary"].startswith("1 offer of 1 kind")
    plan, key = plan_of(client, prices=[found["upload"]])
    assert plan.request.prices == (found["upload"],)  # not where it lies
    assert plan.fleet[0].usd_per_unit_hour == 16
    assert "/tmp" not in client.get(f"{V1}/plans/{key}").text
    assert client.get(f"{V1}/uploads/{found['upload']}").json() == found
    assert client.get(f"{V1}/plans/{key}/exports/vllm").status_code == 200


def test_a_model_can_be_brought(client: TestClient) -> None:
    found = client.post(f"{V1}/uploads?kind=model&name=config.json", content=json.dumps(CONFIG)).json()
    assert found["check"]["summary"].startswith("llama, 1.")
    plan, _ = plan_of(client, model=found["upload"])
    assert plan.status == "optimal" and plan.request.llm == found["upload"]
    assert client.post(f"{V1}/frontier", json={"model": found["upload"], "workload": "chat"}).status_code == 200


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("prices", b"", "empty"),
        ("prices", b"a,b\n1,2", "not a price list"),
        ("prices", b"PAR1" + bytes(64), "parquet"),
        ("prices", b"\xff\xfe\x00" * 50, ""),
        ("model", b"no", "JSON"),
        ("model", b"[1]", "JSON object"),
        ("model", b'{"model_type": "nothing"}', "not supported"),
        ("model", b'{"a":' * 20_000, "JSON"),
    ],
)
def test_files_that_cannot_be_read_are_refused(client: TestClient, kind: str, content: bytes, said: str) -> None:
    found = problem(client.post(f"{V1}/uploads?kind={kind}&name=x", content=content), 422)
    assert said.lower() in found["detail"].lower() and found["field"] == "upload"


def test_an_upload_that_is_not_here_is_refused(client: TestClient) -> None:
    gone = "upload-0123456789abcdef.csv"
    assert "not here" in problem(client.post(f"{V1}/plan", json=SMALL | {"prices": [gone]}), 422)["detail"]
    problem(client.get(f"{V1}/uploads/{gone}"), 404)
    request = plan_of(client)[0].request.model_copy(update={"prices": (gone,)})
    problem(client.post(f"{V1}/solve", content=request.model_dump_json(), headers=JSON), 422)


# --- refusals ---


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "pyproject.toml", "a.csv"]
)
@pytest.mark.parametrize("field", ["model", "prices"])
def test_no_name_is_a_path(client: TestClient, field: str, name: str) -> None:
    value = name if field == "model" else [name]
    assert problem(client.post(f"{V1}/plan", json=SMALL | {field: value}), 422)["field"] == field
    assert problem(client.post(f"{V1}/frontier", json={field: value}), 422)["field"] == field
    request = plan_of(client)[0].request
    changed = request.model_copy(update={"llm": name} if field == "model" else {"prices": (name,)})
    problem(client.post(f"{V1}/solve", content=changed.model_dump_json(), headers=JSON), 422)


def test_a_request_cannot_name_a_catalog(client: TestClient) -> None:
    request = plan_of(client)[0].request.model_copy(update={"catalog": "catalogs"})
    found = problem(client.post(f"{V1}/solve", content=request.model_dump_json(), headers=JSON), 422)
    assert found["field"] == "catalog"


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2fapp.py",
        "/static/../app.py",
        "/static/%2e%2e/%2e%2e/pyproject.toml",
        "/static//etc/passwd",
        f"{V1}/plans/..%2f..%2fetc",
        f"{V1}/plans/plan-0",
        f"{V1}/uploads/..%2fx.csv",
        "/docs",
        "/redoc",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"power": "lots"}, "power"),
        ({"power": None}, "power"),
        ({"sla": "quick"}, "sla"),
        ({"demand": "5 apples"}, "demand"),
        ({"model": "<script>alert(1)</script>"}, "model"),
        ({"model": "deepseek-r9"}, "model"),
        ({"workload": "none such"}, "workload"),
        ({"prices": ["none-such"]}, "prices"),
        ({"gpus": ["none-such"]}, "gpus"),
        ({"objective": "joy"}, "objective"),
        ({"isl": "many"}, "isl"),
        ({"isl": -1}, "isl"),
        ({"budget_usd_per_hour": 0}, "budget_usd_per_hour"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"model": ["a"]}, "model"),
        ({"gpus": ["h100_sxm"] * 51}, "gpus"),
    ],
)
def test_bad_input_is_one_line_with_its_field(client: TestClient, change: dict[str, Any], field: str) -> None:
    assert problem(client.post(f"{V1}/plan", json=SMALL | change), 422)["field"] == field


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"power": NaN}', b"[" * 60_000])
def test_hostile_bodies_are_refused(client: TestClient, body: bytes) -> None:
    problem(client.post(f"{V1}/plan", content=body, headers=JSON), 400, 422)


def test_models_go_by_their_publishers_names(client: TestClient) -> None:
    alias = next(alias for alias in tokopt.load_catalog().llm("qwen3-8b").aliases if "/" in alias)
    assert plan_of(client, model=alias.upper())[0] == plan_of(client)[0]
    assert "unknown" in problem(client.post(f"{V1}/plan", json=SMALL | {"model": "etc/passwd"}), 422)["detail"]


def test_plans_that_are_not_kept_are_refused(client: TestClient) -> None:
    assert "ask for it again" in problem(client.get(f"{V1}/plans/plan-{'0' * 32}"), 404)["detail"]
    problem(client.get(f"{V1}/plans/{plan_of(client)[1]}/exports/nothing"), 422)


def test_the_api_is_described(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    schemas = found["components"]["schemas"]
    assert {"Plan", "PlanView", "Frontier", "PlanQuestion", "ProblemDocument", "PlansCompared", "Export"} <= set(
        schemas
    )
    for path, methods in found["paths"].items():
        for said in methods.values():
            assert said["description"], path
            assert said["responses"]["200"]["content"], path


def test_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/api", "/static/app.js", "/static/app.css", "/static/chart.js", "/static/view.js"):
        response = client.get(path)
        assert response.status_code == 200
        text = response.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "//cdn" not in text
        assert " style=" not in text and "onclick" not in text and "innerHTML" not in text
        policy = response.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"


def test_what_takes_too_long_is_said() -> None:
    with TestClient(create_app(Settings(most_solves=1, longest_solve_s=0.01)), base_url="http://localhost") as hasty:
        found = problem(hasty.post(f"{V1}/plan", json=SMALL), 504)
    assert "no answer within 0.01 s" in found["detail"]
