"""The undo sidecar: what brings back the base's bytes where the base itself is gone.

It holds, weight by weight, how many units in the last place the fp64 prediction of the inverse is
off, which is nought for most of them: well under a bit a weight (`docs/revert.md`).
"""

from patchkit.undo.sidecar import Undo, read_undo
from patchkit.undo.writing import write_undo

__all__ = ["Undo", "read_undo", "write_undo"]
