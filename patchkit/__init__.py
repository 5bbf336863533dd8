"""Small, exact, reversible edits for language models.

Public names are imported on first use: `import patchkit` loads neither torch nor transformers.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchkit.errors import BaseMismatch as BaseMismatch
    from patchkit.errors import CheckpointError as CheckpointError
    from patchkit.errors import FactsError as FactsError
    from patchkit.errors import FormatError as FormatError
    from patchkit.errors import InvariantError as InvariantError
    from patchkit.errors import OutputError as OutputError
    from patchkit.errors import PatchkitError as PatchkitError
    from patchkit.errors import SolveError as SolveError
    from patchkit.errors import UnsupportedModel as UnsupportedModel
    from patchkit.events import SILENT as SILENT
    from patchkit.events import Progress as Progress

__version__ = "0.1.0"

# Where each public name is defined.
_HOME = {
    "SILENT": "events",
    "BaseMismatch": "errors",
    "CheckpointError": "errors",
    "FactsError": "errors",
    "FormatError": "errors",
    "InvariantError": "errors",
    "OutputError": "errors",
    "PatchkitError": "errors",
    "Progress": "events",
    "SolveError": "errors",
    "UnsupportedModel": "errors",
}

__all__ = sorted(("__version__", *_HOME))


def __getattr__(name: str) -> object:
    """Import the module that defines `name`; AttributeError for anything not exported."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """This package, in which a verb such as `apply` wins over the module of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds a submodule in its package as soon as anything imports it;
        # without this, `patchkit.evaluate` would be a function or a module depending on history.
        if name not in _HOME or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
