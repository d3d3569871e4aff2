"""What `doctor` found of an installation."""

from __future__ import annotations

from enum import StrEnum, unique

from tokopt.domain.estimates import Record


@unique
class Health(StrEnum):
    """How something is."""

    FINE = "fine"
    MISSING = "missing"  # and not needed but for what is named
    CARE = "care"  # it works, and something is to be known
    FAULT = "fault"  # something does not work


class Finding(Record):
    """One thing that was looked at."""

    what: str
    health: Health
    found: str
    mend: str = ""  # what to do about it


class Checkup(Record):
    """An installation of tokopt."""

    findings: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether nothing is at fault."""
        return all(each.health is not Health.FAULT for each in self.findings)
