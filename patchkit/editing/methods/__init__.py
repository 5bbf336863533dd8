"""One file for each way to turn facts into factors, found here by name.

A method is a module with `Options` (a frozen dataclass of its hyperparameters), `PROTECTIONS` (the
names of `patchkit.editing.protect` that it composes with), `REWRITES` (whether facts that later
ones hurt are written again by default) and `solve`; `finish`, where it has one, runs once after
the last batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from patchkit.editing.settings import nearest
from patchkit.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from patchkit.editing.batch import Batch
    from patchkit.editing.state import SiteState
    from patchkit.tensors.layout import Site

States: TypeAlias = "Mapping[int, SiteState]"
Finished: TypeAlias = Callable[[int, int], None]
"""Told after every step how many of how many steps a batch has taken."""

METHODS: Mapping[str, str] = {
    "rotation": "rotation",
    "rome": "rome",
    "memit": "memit",
    "emmet": "emmet",
    "rect": "rect",
    "prune": "prune",
    "alphaedit": "alphaedit",
    "mose": "mose",
    "mose-oft": "mose_oft",
}
"""Method names and the modules that hold them."""


class Method(Protocol):
    """What a module in this package offers."""

    @property
    def Options(self) -> type[Any]:
        """The dataclass of its hyperparameters, all with defaults."""

    @property
    def PROTECTIONS(self) -> Mapping[str, str | None]:
        """For each protection None where it composes, else why it does not."""

    @property
    def REWRITES(self) -> bool:
        """Whether facts that later batches hurt are written again unless a recipe says so."""

    def stored(self, site: Site, facts: int, options: Any) -> int:
        """Return the most numbers that a patch holds for one matrix after writing `facts`."""

    def solve(
        self,
        model: PreTrainedModel,
        states: States,
        batch: Batch,
        options: Any,
        finished: Finished,
    ) -> dict[int, SiteState]:
        """Write one batch of facts and return the new states, keyed by layer.

        The model's weights are those of `states` on entry; whatever they are on return, the engine
        installs the new states' weights. Raises SolveError.
        """


def find_method(name: str) -> Method:
    """Return the method called `name`; RecipeError, with the nearest names, if there is none."""
    if name not in METHODS:
        raise RecipeError(f"there is no method {name!r}", hint=nearest(name, METHODS))
    return cast(Method, import_module(f"{__name__}.{METHODS[name]}"))


def finish(method: Method, states: States, options: Any) -> dict[int, SiteState]:
    """Let a method that has a last step take it, on the states after the last batch."""
    last: Callable[[States, Any], dict[int, SiteState]] | None = getattr(method, "finish", None)
    return dict(states) if last is None else last(states, options)
