"""Which commit a figure comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str | None:
    """Return the id of the commit that is checked out, None outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or None
