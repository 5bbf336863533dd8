"""Methods that work on the updates of another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from patchkit.editing.additive import Ridge
from patchkit.editing.methods import find_method
from patchkit.editing.settings import build
from patchkit.editing.state import SiteState
from patchkit.errors import RecipeError

RIDGE_HOSTS = ("memit", "emmet", "alphaedit")
LOW_RANK_HOSTS = (*RIDGE_HOSTS, "rome")


def host_options(host: str, given: object) -> Any:
    """Return the options of `host`, built from a mapping or from nothing; RecipeError if wrong."""
    method = find_method(host)
    if isinstance(given, method.Options):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise RecipeError(f"host_options must be settings of {host}, got {given!r}")
    return build(method.Options, given or {}, f"options of {host}")


def host_solver(host: str, options: object) -> Callable[[SiteState], Ridge]:
    """Return what begins a matrix's solver in the method `host`, one of RIDGE_HOSTS."""
    make: Callable[[object], Callable[[SiteState], Ridge]] = find_method(host).solver  # type: ignore[attr-defined]
    return make(options)
