"""Named checks of a patch, alone or against its base, and of a patched folder.

All checks are always reported; one that needs what was not given says so.
"""

from patchkit.verify.folder import verify_folder
from patchkit.verify.patch import verify_patch

__all__ = ["verify_folder", "verify_patch"]
