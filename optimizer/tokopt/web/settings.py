"""What the server is started with, and the limits that it keeps."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MIB = 2**20
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the server listens, who may ask, and how much it does at a time."""

    host: str = "127.0.0.1"
    port: int = 8321
    names: tuple[str, ...] = ()  # further host names by which it is asked
    token: str | None = None  # None = whoever reaches it may ask
    catalog: str | None = None  # overlay directory
    warm: bool = False  # have the page's first question answered before anyone asks
    most_solves: int = 2  # at a time, a process each
    most_waiting: int = 64  # questions that wait for a process; further ones are told to come back
    longest_wait_s: float = 20.0
    longest_solve_s: float = 30.0
    longest_report_s: float = 180.0
    most_upload_bytes: int = 5 * MIB
    most_json_bytes: int = 64 * 1024
    longest_body_s: float = 30.0  # that a client may take to send what it sends
    most_uploads: int = 32  # kept at a time; the one that was used longest ago goes first
    most_uploads_bytes: int = 64 * MIB
    most_cached_bytes: int = 64 * MIB  # of answers
    most_worker_bytes: int = 4096 * MIB  # memory of a process

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the server."""
        return is_loopback(self.host)

    @property
    def report_s(self) -> float:
        """Seconds that a whole report gets: it solves many plans."""
        return min(self.longest_report_s, 6.0 * self.longest_solve_s)

    @property
    def solver_s(self) -> float:
        """Seconds that the solver of one plan gets: the rest of a process's time is for searching and margins."""
        return self.longest_solve_s / 2


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
