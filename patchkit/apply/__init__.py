"""Applying patches to a checkpoint folder: a new folder, written whole or not at all.

`plan_apply` says from headers alone what would be written; `apply_patches` writes it. Neither
loads torch before there are weights to compute.
"""

from patchkit.apply.folder import ApplyReport, apply_patches
from patchkit.apply.plan import ApplyPlan, plan_apply

__all__ = ["ApplyPlan", "ApplyReport", "apply_patches", "plan_apply"]
