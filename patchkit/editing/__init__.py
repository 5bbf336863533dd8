"""Facts and a model in, a patch out."""

from patchkit.editing.engine import edit, edit_sequence
from patchkit.editing.plan import plan_edit
from patchkit.editing.recipe import Recipe, read_recipe
from patchkit.editing.report import Edit, EditPlan, EditReport, FactResult, TensorResult
from patchkit.editing.stage import Stage, Written

__all__ = [
    "Edit",
    "EditPlan",
    "EditReport",
    "FactResult",
    "Recipe",
    "Stage",
    "TensorResult",
    "Written",
    "edit",
    "edit_sequence",
    "plan_edit",
    "read_recipe",
]
