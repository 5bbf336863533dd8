"""What differs: between two patches, a patch and a checkpoint, or two checkpoints.

None of these loads a model, and two patches are compared without their base; what models answer is
in `diff.answers`.
"""

from patchkit.diff.applied import diff_applied
from patchkit.diff.checkpoints import diff_checkpoints
from patchkit.diff.patches import diff_patches
from patchkit.diff.report import (
    AppliedDiff,
    AppliedTensor,
    CheckpointDiff,
    Explanation,
    FactsDiff,
    PatchDiff,
    SideDiff,
    TensorChange,
    TensorDiff,
)

__all__ = [
    "AppliedDiff",
    "AppliedTensor",
    "CheckpointDiff",
    "Explanation",
    "FactsDiff",
    "PatchDiff",
    "SideDiff",
    "TensorChange",
    "TensorDiff",
    "diff_applied",
    "diff_checkpoints",
    "diff_patches",
]
