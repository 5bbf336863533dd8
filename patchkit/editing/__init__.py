"""Facts and a model in, a patch out."""

from patchkit.editing.engine import edit
from patchkit.editing.plan import plan_edit
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
    "plan_edit",
    "read_recipe",
]
