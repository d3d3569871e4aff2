"""The tables of a simulation as compiled functions hand them on: one reference instead of twenty arrays.

Passing arrays costs a dozen machine words each at every call, and a compiler that has to think about all of them.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.experimental import structref
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

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


@intrinsic  # type: ignore[untyped-decorator]
def borrowed(_context: Any, array: Any) -> Any:
    """Return an array without a count of who uses it, which costs more than what is done with most elements.

    Whoever hands it on has to hold the array itself for as long as it is used.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        copy = make_array(signature.args[0])(context, builder, arguments[0])
        copy.meminfo = cgutils.get_null_value(copy.meminfo.type)
        copy.parent = cgutils.get_null_value(copy.parent.type)
        return copy._getvalue()

    return array(array), code
