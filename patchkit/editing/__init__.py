"""Facts and a model in, a patch out."""

from patchkit.editing.engine import edit
from patchkit.editing.recipe import Recipe, read_recipe
from patchkit.editing.report import Edit, EditPlan, EditReport, FactResult, TensorResult

__all__ = [
    "Edit",
    "EditPlan",
    "EditReport",
    "FactResult",
    "Recipe",
    "TensorResult",
    "edit",
    "read_recipe",
]
