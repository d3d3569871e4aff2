"""`tokopt serve`: where it listens, whom it lets in, how it ends."""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner

from served_pages import served
from tokopt.cli import app

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


def refused(*options: str) -> str:
    """Return the one line with which a call is refused."""
    done = CliRunner().invoke(app, ["serve", *options])
    assert done.exit_code == 2, done.output
    assert len(done.stderr.strip().splitlines()) == 1 and not done.stdout
    return done.stderr


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = refused("--port", str(taken.getsockname()[1]))
    assert "in use" in said and "--port 0" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "no.such.host.invalid"), "no such address"),
        (("--host", "192.0.2.1"), "cannot listen"),  # an address that no machine has
        (("--token", "short"), "--token: 16 or more"),
        (("--token", "with blanks and more of them"), "--token: 16 or more"),
        (("--port", "99999"), "99999"),
        (("--catalog", "/no/such/folder"), "no such directory"),
        (("--max-solves", "0"), "0"),
        (("--max-solve-time", "5kg"), "--max-solve-time"),
    ],
)
def test_what_cannot_be_is_one_line(options: tuple[str, ...], said: str) -> None:
    assert said in refused("--port", "0", *options)


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_a_missing_extra_is_one_line(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert "pip install 'tokopt[web]'" in refused()


def status_of(link: str | urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(link, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_answers_and_ends_cleanly() -> None:
    with served() as found:
        assert found.link.startswith("http://127.0.0.1:")
        assert status_of(found.link) == 200
        status, said = found.interrupt()
    assert status == 0 and "Traceback" not in said


def test_it_ends_while_it_works() -> None:
    """What is worked on is given up: who asked is told, and nobody waits."""
    long = {"demand": "500req/s", "model": "llama-3.1-70b", "workload": "chat", "prices": ["all"], "survive": "zone"}
    told: list[int] = []

    def ask(link: str) -> None:
        content = {"Content-Type": "application/json"}
        told.append(status_of(urllib.request.Request(f"{link}api/v1/plan", json.dumps(long).encode(), content)))

    with served() as found:
        assert status_of(f"{found.link}api/v1/options") == 200  # a process is there
        asking = threading.Thread(target=ask, args=(found.link,))
        asking.start()
        asking.join(1.5)
        assert asking.is_alive()
        status, said = found.interrupt()
        asking.join(30)
    assert (status, told) == (0, [503]) and "Traceback" not in said and "ERROR" not in said


def test_other_addresses_ask_for_a_token() -> None:
    with served("--host", "0.0.0.0") as found:
        link, _, token = found.link.partition("?token=")
        assert len(token) >= 32
        assert status_of(link) == 401 and status_of(found.link) == 200


def test_a_token_can_be_given() -> None:
    with served("--token", "0123456789abcdefXYZ") as found:
        assert found.link.endswith("/?token=0123456789abcdefXYZ")
        assert status_of(found.link.partition("?")[0]) == 401
