"""Everything that patchkit raises on purpose.

    PatchkitError                             code
    ├── FactsError         facts_invalid      a facts file has lines that cannot be used
    ├── FormatError        format_invalid     bytes are not the format they should be
    ├── CheckpointError    checkpoint_invalid a base folder is incomplete or of a kind not handled
    ├── BaseMismatch       base_mismatch      a patch and a base do not belong together
    ├── UnsupportedModel   unsupported_model  an architecture has no module that can be edited
    ├── InvariantError     invariant_broken   a number breaks what the mathematics promises
    ├── RecipeError        recipe_invalid     settings that do not exist or cannot be
    ├── SolveError         solve_failed       an edit could not be computed
    ├── OutputError        output_failed      a result could not be written
    ├── ExtraMissing       extra_missing      an optional dependency is not installed
    ├── TaskError          task_failed        lm-evaluation-harness could not run a task
    ├── SignatureError     signature_failed   a signature could not be made, or not be checked
    └── HubError           hub_failed         the Hub has not, does not take or does not give it
        ├── AccessDenied   access_denied      a login is missing or may not do this
        ├── PatchWithdrawn patch_withdrawn    a published patch was withdrawn by its owner
        └── HubUnreachable hub_unreachable    no answer, or one that says to try later

Each error says what happened in one sentence with the two values that disagree; `hint` is a
command or action that helps, `details` the same facts as data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Protocol


class PatchkitError(Exception):
    """Base of all errors that a caller can act on."""

    code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        """Keep the sentence, the hint and the facts behind it."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: Mapping[str, object] = MappingProxyType(dict(details or {}))


class LocatedProblem(Protocol):
    """What an error needs to know of one bad line."""

    @property
    def line(self) -> int | None:
        """Line number from 1, or None for the file as a whole."""

    @property
    def message(self) -> str:
        """What is wrong there."""


class FactsError(PatchkitError):
    """A facts file has problems; `problems` lists all of them in file order."""

    code: ClassVar[str] = "facts_invalid"

    def __init__(
        self,
        message: str,
        *,
        problems: Sequence[LocatedProblem] = (),
        hint: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        """Keep every problem, not only the first."""
        super().__init__(message, hint=hint, details=details)
        self.problems = tuple(problems)


class FormatError(PatchkitError):
    """A file is damaged, hostile, or not of the format it claims."""

    code: ClassVar[str] = "format_invalid"


class CheckpointError(PatchkitError):
    """A checkpoint folder is incomplete, inconsistent, or of a kind that is not handled."""

    code: ClassVar[str] = "checkpoint_invalid"


class BaseMismatch(PatchkitError):
    """A patch was made for other weights; `details` holds `expected` and `found`."""

    code: ClassVar[str] = "base_mismatch"


class UnsupportedModel(PatchkitError):
    """The architecture has no tensor that patchkit knows how to edit."""

    code: ClassVar[str] = "unsupported_model"


class InvariantError(PatchkitError):
    """A value breaks an invariant: not finite, or outside the limit of the mathematics."""

    code: ClassVar[str] = "invariant_broken"


class RecipeError(PatchkitError):
    """A recipe names a setting that does not exist or gives it an impossible value."""

    code: ClassVar[str] = "recipe_invalid"


class SolveError(PatchkitError):
    """An edit could not be computed from these facts."""

    code: ClassVar[str] = "solve_failed"


class OutputError(PatchkitError):
    """A result could not be written where it was asked for."""

    code: ClassVar[str] = "output_failed"


class ExtraMissing(PatchkitError):
    """What was asked for needs an optional dependency; the hint says how to install it."""

    code: ClassVar[str] = "extra_missing"


class TaskError(PatchkitError):
    """A task of lm-evaluation-harness could not be read or run."""

    code: ClassVar[str] = "task_failed"


class SignatureError(PatchkitError):
    """A key or Sigstore could not be used; a signature that is not valid is a verdict instead."""

    code: ClassVar[str] = "signature_failed"


class HubError(PatchkitError):
    """Something on the Hub does not exist, was refused, or changed meanwhile."""

    code: ClassVar[str] = "hub_failed"


class AccessDenied(HubError):
    """The Hub wants a login, or another one."""

    code: ClassVar[str] = "access_denied"


class PatchWithdrawn(HubError):
    """The owner of a repository withdrew a patch; the sentence has the reason."""

    code: ClassVar[str] = "patch_withdrawn"


class HubUnreachable(HubError):
    """The Hub gave no answer, or one that says to try again later."""

    code: ClassVar[str] = "hub_unreachable"
