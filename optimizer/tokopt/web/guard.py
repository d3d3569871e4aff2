"""Who may ask what, before anything is read: hosts, origins, tokens, sizes; and headers of every answer."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from .problems import MEDIA_TYPE, Problem
from .settings import LOOPBACK_NAMES, Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
READING = ("GET", "HEAD")
API = "/api/"  # reading from there starts work, too
UPLOADS = "/api/v1/uploads"
WILDCARDS = ("0.0.0.0", "::")
MONTH_S = 30 * 24 * 3600


class Guard:
    """Lets through what may be asked, and answers the rest with a problem document."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.cookie = f"tokopt_{settings.port}"
        self._names = _names(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        extra = dict(SECURITY_HEADERS)

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = message.get("headers", [])
                present = {name.lower() for name, _ in kept}
                added = [(n.encode(), v.encode()) for n, v in extra.items() if n.lower().encode() not in present]
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        try:
            self._check_host(headers)
            if self._check_token(scope, headers):
                token = self.settings.token or ""
                extra["Set-Cookie"] = f"{self.cookie}={token}; Path=/; Max-Age={MONTH_S}; HttpOnly; SameSite=Strict"
            if scope["method"] not in READING or scope["path"].startswith(API):
                _check_origin(headers)
            body = await self._body(scope, headers, receive)
        except Problem as problem:
            await _answer(problem, guarded_send)
            return
        await self.app(scope, _replayed(body, receive), guarded_send)

    def _check_host(self, headers: dict[str, str]) -> None:
        """Refuse names that are not ours: a page elsewhere may have its own name lead to our address."""
        name = host_name(headers.get("host", ""))
        if name in self._names or (self.settings.host in WILDCARDS and _is_address(name)):
            return
        raise Problem(421, f"this server does not answer to the host {name!r}; --allow-host would have it do so")

    def _check_token(self, scope: Scope, headers: dict[str, str]) -> bool:
        """Refuse who has no token; True where it came in the link, so that a cookie is to keep it."""
        wanted = self.settings.token
        if wanted is None:
            return False
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(bearer.strip(), wanted):
            return False
        linked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["method"] in READING and linked and _same(linked, wanted):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            cookie = None
        if cookie is not None and _same(cookie.value, wanted):
            return False
        raise Problem(401, "open the link that tokopt serve printed, or send Authorization: Bearer TOKEN")

    async def _body(self, scope: Scope, headers: dict[str, str], receive: Receive) -> bytes:
        """Return what was sent, all of it, if it is not too much and does not take too long."""
        uploading = scope["path"].rstrip("/") == UPLOADS
        most = self.settings.most_upload_bytes if uploading else self.settings.most_json_bytes
        stated = headers.get("content-length", "0")
        if not stated.isdecimal():
            raise Problem(400, "Content-Length is not a number")
        too_large = Problem(413, f"more than {most:,} bytes")
        if int(stated) > most:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.longest_body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "the connection was closed before everything had come")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise Problem(408, f"not everything came within {self.settings.longest_body_s:g} s") from None


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port and brackets, in lower case."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if name.count(":") == 1 else name


def _names(settings: Settings) -> frozenset[str]:
    own = (socket.gethostname(),) if settings.host in WILDCARDS else ()
    return frozenset(name.lower() for name in (*LOOPBACK_NAMES, settings.host, *settings.names, *own))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _check_origin(headers: dict[str, str]) -> None:
    """Refuse what pages of other sites send; programs state no origin."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise Problem(403, "questions are not taken from pages of other sites")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Problem(403, "questions are not taken from pages of other sites")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a channel that hands over what was read already, and then what else happens."""
    handed = False

    async def replay() -> Message:
        nonlocal handed
        if handed:
            return await receive()
        handed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(problem: Problem, send: Send) -> None:
    body = problem.body()
    named = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), **problem.headers}
    headers = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in named.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
