"""Taking patches off a folder again, to the bit, or one of them from the middle of a stack."""

from patchkit.revert.plan import RevertPlan, Source, plan_revert
from patchkit.revert.removal import RevertReport, revert

__all__ = ["RevertPlan", "RevertReport", "Source", "plan_revert", "revert"]
