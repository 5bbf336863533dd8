"""How patch files are called, and how people name one."""

from __future__ import annotations

ENDING = ".patch.safetensors"
"""What the name of a patch file ends in."""

_SHORTEST = 6  # digits that name a digest


def stem(name: str) -> str:
    """The name of a patch as people say it: `capitals` for `capitals.patch.safetensors`."""
    return name.removesuffix(".safetensors").removesuffix(".patch")


def begins(digest: str, wanted: str) -> bool:
    """Whether `wanted`, with `sha256:` or without, is long enough a beginning of a digest."""
    digits = wanted.removeprefix("sha256:")
    return len(digits) >= _SHORTEST and digest.removeprefix("sha256:").startswith(digits)
