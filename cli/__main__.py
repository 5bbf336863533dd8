"""`python -m patchkit_cli`, the same as `patchkit`."""

from .main import run

run()
