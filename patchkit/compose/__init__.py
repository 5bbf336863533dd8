"""Several patches become one: their product in order, or a mean; and the inverse of one.

    made = compose([a, Part(b, "b", strength=0.5)], compress=1e-6)
    made.patch.write("both.patch.safetensors")

Nothing here needs the base's weights.
"""

from patchkit.compose.composition import Composition, Method, compose
from patchkit.compose.parts import Part
from patchkit.compose.report import ComposeReport, Conflict, TensorResult

__all__ = [
    "ComposeReport",
    "Composition",
    "Conflict",
    "Method",
    "Part",
    "TensorResult",
    "compose",
]
