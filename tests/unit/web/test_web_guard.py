"""Who may ask: hosts, origins, tokens; and how much may be sent."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from tokopt.web.app import create_app
from tokopt.web.guard import host_name
from tokopt.web.settings import Settings

LIMITS = "/api/v1/limits"  # asks for no process
TOKEN = "a-token-that-is-long-enough"


def asking(settings: Settings, host: str = "localhost", **more: Any) -> TestClient:
    """Return a client of an application whose processes are not started."""
    return TestClient(create_app(settings), base_url=f"http://{host}", **more)


@pytest.fixture
def local() -> TestClient:
    return asking(Settings())


def test_names_in_host_headers() -> None:
    hosts = {"localhost:8321": "localhost", "[::1]:80": "::1", "LocalHost": "localhost", "a:b:c": "a:b:c", "": ""}
    assert {host: host_name(host) for host in hosts} == hosts


@pytest.mark.parametrize("host", ["localhost", "localhost:8321", "127.0.0.1:8321", "[::1]:8321"])
def test_this_machine_s_names_are_answered(local: TestClient, host: str) -> None:
    assert local.get(LIMITS, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8321", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
def test_names_of_others_are_not(local: TestClient, host: str) -> None:
    response = local.get(LIMITS, headers={"Host": host})
    assert response.status_code == 421 and response.headers["x-content-type-options"] == "nosniff"


def test_hosts_that_are_listened_on_or_allowed_are_answered() -> None:
    named = asking(Settings(host="10.1.2.3", names=("planner.example",), token=TOKEN))
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for host, status in (("10.1.2.3:80", 200), ("planner.example", 200), ("other.example", 421), ("10.9.9.9", 421)):
        assert named.get(LIMITS, headers=bearer | {"Host": host}).status_code == status, host
    anywhere = asking(Settings(host="0.0.0.0", token=TOKEN))
    for host, status in (("10.9.9.9", 200), ("[fe80::1]", 200), ("other.example", 421)):
        assert anywhere.get(LIMITS, headers=bearer | {"Host": host}).status_code == status, host


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),  # another port is another page
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost"}, 422),  # let through to be read: the body is none
        ({}, 422),
    ],
)
def test_questions_from_other_sites_pages_are_refused(local: TestClient, headers: dict[str, str], status: int) -> None:
    response = local.post("/api/v1/plan", headers=headers | {"Content-Type": "application/json"}, content="{}x")
    assert response.status_code == status, response.text


# --- tokens ---


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer é"},
        {"Cookie": "tokopt_8321=wrong"},
        {"Cookie": f"tokopt_1={TOKEN}"},
        {"Cookie": "\x7f=;;;"},
    ],
)
@pytest.mark.parametrize("path", ["/", LIMITS, "/static/app.js", "/openapi.json", "/api/v1/nothing"])
def test_without_the_token_nothing_is_told(headers: dict[str, str], path: str) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    response = asking(Settings(token=TOKEN)).get(path, headers=encoded)
    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in response.text


def test_a_bearer_is_let_through() -> None:
    response = asking(Settings(token=TOKEN)).get(LIMITS, headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200 and "set-cookie" not in response.headers


def test_the_link_sets_a_cookie_that_scripts_and_other_sites_do_not_get() -> None:
    client = asking(Settings(token=TOKEN))
    first = client.get(f"/?token={TOKEN}")
    assert first.status_code == 200
    kept = first.headers["set-cookie"]
    assert "HttpOnly" in kept and "SameSite=Strict" in kept and "Path=/" in kept
    assert client.get(LIMITS).status_code == 200  # by the cookie
    assert asking(Settings(token=TOKEN)).get("/?token=wrong").status_code == 401


def test_a_token_in_the_address_does_not_do_for_questions() -> None:
    response = asking(Settings(token=TOKEN)).post(f"/api/v1/plan?token={TOKEN}", json={})
    assert response.status_code == 401


# --- sizes ---


def test_bodies_are_bounded(local: TestClient) -> None:
    large = b'{"power": "' + b"9" * 70_000 + b'"}'
    response = local.post("/api/v1/plan", content=large)
    assert response.status_code == 413 and response.json()["detail"] == "more than 65,536 bytes"
    assert local.post("/api/v1/plan", content=iter([large[:40_000], large[40_000:]])).status_code == 413  # unstated


def test_uploads_are_bounded() -> None:
    client = asking(Settings(most_upload_bytes=100_000))
    for content in (b"x" * 100_001, iter([b"x" * 60_000] * 2)):
        assert client.post("/api/v1/uploads?kind=prices", content=content).status_code == 413


@pytest.mark.parametrize("length", ["-1", "1e9", "x"])
def test_lengths_that_are_none_are_refused(local: TestClient, length: str) -> None:
    assert local.post("/api/v1/plan", content=b"{}", headers={"Content-Length": length}).status_code == 400
