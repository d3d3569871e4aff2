"""`tokopt serve`."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click

from tokopt.cli.help import Command
from tokopt.cli.output import say
from tokopt.cli.shell import ExitStatus
from tokopt.errors import InputError

if TYPE_CHECKING:
    from types import FrameType

    from tokopt.web.settings import Settings

EXAMPLES = """\b
Examples:
  tokopt serve
  tokopt serve --port 9000 --open
  tokopt serve --host 0.0.0.0 --allow-host planner.example.org

Ctrl-C ends it. The JSON API that the page uses is listed under /api."""
LEAST_TOKEN = 16  # characters
QUEUE = 128  # connections that wait to be taken
MOST_CONNECTIONS = 512
KEEP_ALIVE_S = 15
ENDING_S = 3


@click.command("serve", cls=Command, epilog=EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8321,
    show_default=True,
    metavar="PORT",
    help="Where to listen; 0 = any that is free.",
)
@click.option(
    "--token",
    metavar="TOKEN",
    help="What whoever asks has to know.  [default: none on this machine, else one that is made up and printed]",
)
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="A further host name to answer to.")
@click.option("--open", "opened", is_flag=True, help="Open the page in a browser.")
@click.option("--catalog", metavar="DIR", help="Directory whose entries replace the embedded catalog's.")
@click.option(
    "--max-solves", type=click.IntRange(1, 64), default=2, show_default=True, metavar="N", help="Most at a time."
)
@click.option(
    "--max-solve-time", default="30s", show_default=True, metavar="TIME", help="Most time for the answer to a question."
)
@click.option(
    "--max-upload-mib",
    type=click.IntRange(1, 256),
    default=5,
    show_default=True,
    metavar="MIB",
    help="Most that a file sent to the page may have.",
)
def command(
    host: str,
    port: int,
    token: str | None,
    names: tuple[str, ...],
    opened: bool,
    catalog: str | None,
    max_solves: int,
    max_solve_time: str,
    max_upload_mib: int,
) -> int:
    """Serve a page on which to plan, in a browser.

    Model, workload, limits, power and prices are chosen on it, and plan and frontier follow. Without --host only this
    machine reaches it; with another address a token is asked for.
    """
    from tokopt.cli.options import seconds

    _require_web()
    if catalog is not None:
        from tokopt.api import load_catalog

        load_catalog(catalog)
    from tokopt.web.settings import MIB, Settings

    limit_s = seconds(max_solve_time, what="--max-solve-time")
    listening = _listen(host, port)
    settings = Settings(
        host=host,
        port=listening.getsockname()[1],
        names=names,
        token=_token(host, token),
        catalog=catalog,
        warm=True,
        most_solves=max_solves,
        longest_solve_s=limit_s,
        most_upload_bytes=max_upload_mib * MIB,
        most_uploads_bytes=max(64, 4 * max_upload_mib) * MIB,
    )
    _serve(settings, listening, opened=opened)
    return ExitStatus.ANSWERED


def _require_web() -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"serve needs the extra web ({error.name} is missing): pip install 'tokopt[web]'") from None


def _token(host: str, token: str | None) -> str | None:
    """Return the token that is asked for: the one that was given, or one of our own where others reach the server."""
    import re
    import secrets

    from tokopt.web.settings import is_loopback

    if token is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if len(token) < LEAST_TOKEN or not re.fullmatch(r"[A-Za-z0-9._~-]+", token):
        raise InputError(f"--token: {LEAST_TOKEN} or more letters, digits, hyphens, dots and underscores are needed")
    return token


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound.

    Raises:
        InputError: The address is not one of this machine, or the port is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: no such address") from None
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(QUEUE)
    except OSError as error:
        listening.close()
        said = (error.strerror or str(error)).lower()
        raise InputError(f"--port {port}: cannot listen on {host}: {said}; --port 0 takes one that is free") from None
    return listening


def _serve(settings: Settings, listening: socket.socket, *, opened: bool) -> None:
    import contextlib

    import uvicorn

    from tokopt.web.app import create_app
    from tokopt.web.connections import Impatient

    app = create_app(settings)

    class Server(uvicorn.Server):
        """A server that gives up what is worked on when it is told to end."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Note a signal."""
            office = getattr(app.state, "office", None)
            if office is not None:
                office.workers.stop()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        http=Impatient,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=ENDING_S,
    )
    link = _link(settings)
    click.echo(f"tokopt is at {link}")
    say("Ctrl-C ends it.")
    if opened:
        import threading
        import webbrowser

        threading.Timer(1.0, webbrowser.open, (link,)).start()
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listening])


def _link(settings: Settings) -> str:
    """Return the address to open."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    named = next(iter(settings.names), f"[{host}]" if ":" in host else host)
    query = "" if settings.token is None else f"?token={settings.token}"
    return f"http://{named}:{settings.port}/{query}"
