"""Models that travel with the package, as folders that `transformers` loads."""

from __future__ import annotations

from pathlib import Path

__all__ = ["atlas_path"]


def atlas_path() -> Path:
    """Return the folder of atlas, the embedded base model."""
    return Path(__file__).parent / "atlas"
