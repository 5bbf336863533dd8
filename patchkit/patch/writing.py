"""Writing a file at once or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from patchkit.errors import OutputError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary sibling and rename it; OutputError, and nothing left, if that fails."""
    sibling = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(sibling, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(sibling, path)
    except OSError as error:
        sibling.unlink(missing_ok=True)
        reason = error.strerror or "unknown reason"
        raise OutputError(f"{path.name} could not be written: {reason}") from error
    except BaseException:
        sibling.unlink(missing_ok=True)
        raise
