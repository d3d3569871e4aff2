"""What is said of speculation, and how sure figures with it are."""

from __future__ import annotations

from collections.abc import Mapping

from tokopt.domain.deployments import Deployment
from tokopt.domain.speculators import OWN_MODULES, Acceptance, Domain, Speculator
from tokopt.errors import InputError
from tokopt.perf.speculation import acceptance_unsure


def speculation_unsure(deployment: Deployment, speculators: Mapping[str, Speculator], domain: Domain | None) -> float:
    """Return the share of throughput that is left if drafts are accepted as seldom as they may be, at 80 %.

    One for the modules that a checkpoint ships: ranges stand on measurements, some of which may have used them.
    """
    if not deployment.speculation_depth or deployment.speculator is None:
        return 1.0
    return acceptance_unsure(speculators[deployment.speculator], domain, deployment.speculation_depth)


def acceptance_said(speculator: Speculator, domain: Domain | None) -> list[str]:
    """Return what acceptance rests on, in sentences."""
    known: Mapping[Domain, Acceptance] = speculator.acceptance
    if domain is not None and domain in known:
        known = {domain: known[domain]}
    bases = sorted({each.basis.value for each in known.values()})
    sources = ", ".join(sorted({each.source for each in known.values()}))
    about = "texts of no stated domain" if domain is None else f"texts of domain {domain.value}"
    of = "" if domain in known else f", the mean over {', '.join(sorted(name.value for name in known))}"
    return [
        f"{speculator.name}: acceptance for {about}{of} is {' and '.join(bases)} ({sources}); speculation by "
        f"{speculator.method.value} was never fitted to measurements"
    ]


def asked_drafts(mtp: int, speculator: str | None, depth: int | None) -> int:
    """Return the draft tokens a step that are asked for.

    Raises:
        InputError: They are said twice, or are fewer than none.
    """
    if mtp and (speculator not in (None, OWN_MODULES) or depth is not None):
        raise InputError("--mtp N stands for --speculator mtp --depth N: give one or the other")
    if depth is not None and speculator is None:
        raise InputError(
            f"--depth needs --speculator, like {OWN_MODULES}; tokopt catalog list speculators has the names"
        )
    drafts = mtp or (int(speculator is not None) if depth is None else depth)
    if drafts < 0:
        raise InputError(f"draft tokens a step start at 0, not {drafts}")
    return drafts
