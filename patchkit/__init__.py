"""Small, exact, reversible edits for language models.

Public names are imported on first use, so that `import patchkit` loads neither torch nor transformers.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "BaseMismatch": "errors",
    "CheckpointError": "errors",
    "FactsError": "errors",
    "FormatError": "errors",
    "InvariantError": "errors",
    "OutputError": "errors",
    "PatchkitError": "errors",
    "SolveError": "errors",
    "UnsupportedModel": "errors",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    """Import the module that defines `name`; AttributeError for anything not exported."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
