"""Which calibrated constants apply to an accelerator, a framework and a precision."""

from __future__ import annotations

from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration, Constants
from tokopt.domain.provenance import Origin


def constants_for(
    calibration: Calibration, accelerator: Accelerator, framework: Framework, precision: Precision
) -> Constants:
    """Return the constants: base values, then each override that matches, in the order of the file.

    The pedigree travels along: each constant keeps the origin and source of the entry that it came from.
    """
    traits = {
        "accelerator": accelerator.name,
        "generation": accelerator.generation,
        "vendor": accelerator.vendor,
        "framework": framework.name,
        "precision": precision.name,
    }
    values = dict(calibration.base)
    origins = dict(calibration.origins)
    sources = dict(calibration.sources)
    for override in calibration.overrides:
        if all(traits[key] == wanted for key, wanted in override.match.items()):
            values.update(override.values)
            origins.update(dict.fromkeys(override.values, override.origin))
            sources.update(dict.fromkeys(override.values, override.source))
    return Constants(**values, origins=origins, sources=sources)


def weakest_origin(constants: Constants) -> Origin:
    """Return the weakest origin among the constants: a sum is only as good as its worst ingredient."""
    order = list(Origin)
    return max(constants.origins.values(), key=order.index, default=Origin.PRIOR)


def acceptance_chances(calibration: Calibration, llm_name: str) -> tuple[float, ...]:
    """Return the chance of each draft token of a model, or the default where none is published for it."""
    return tuple(calibration.acceptance.get(llm_name, calibration.acceptance["default"]))
