"""The tables of a simulation as compiled functions hand them on: one reference instead of twenty arrays.

Passing arrays costs a dozen machine words each at every call, and a compiler that has to think about all of them.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.experimental import structref

from tokopt.simulation.world import World


@structref.register
class _HandedType(types.StructRef):  # type: ignore[misc, name-defined]
    def preprocess_fields(self, fields: Any) -> Any:
        """Take fields as what they are, whatever value they were first seen with."""
        return tuple((name, types.unliteral(kind)) for name, kind in fields)  # type: ignore[attr-defined]

    @property
    def mangling_args(self) -> tuple[str, tuple[()]]:
        """A short name: there is one such type, and that of all its fields would be in every symbol."""
        return "World", ()


class Handed(structref.StructRefProxy):  # type: ignore[misc]
    """Stands for a `World` in compiled code."""


structref.define_constructor(Handed, _HandedType, list(World._fields))
