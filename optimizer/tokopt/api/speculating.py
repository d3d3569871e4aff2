"""What is said of speculation, and how sure figures with it are."""

from __future__ import annotations

from collections.abc import Mapping

from tokopt.domain.deployments import Deployment
from tokopt.domain.features import Feature
from tokopt.domain.speculators import Acceptance, Domain, Speculator
from tokopt.perf.speculation import acceptance_unsure


def method_of(deployment: Deployment, speculators: Mapping[str, Speculator]) -> str:
    """Return the method by which a deployment that speculates drafts."""
    if deployment.speculator is None:
        return Feature.MTP.value
    return speculators[deployment.speculator].method.value


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
