"""Verdicts of named checks, the result of everything that verifies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One named check: what was measured, against which limit, and the verdict.

    `tensor` names the tensor that decided it, where one did. A check that could not be made for
    want of an input is `skipped`: it counts as ok and `detail` says what it needs.
    """

    name: str
    value: object
    limit: object
    ok: bool
    detail: str = ""
    tensor: str | None = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one run, in a fixed order and always complete."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True when no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks with a negative verdict."""
        return tuple(check for check in self.checks if not check.ok)

    @property
    def skipped(self) -> tuple[Check, ...]:
        """The checks that were not made."""
        return tuple(check for check in self.checks if check.skipped)

    def __getitem__(self, name: str) -> Check:
        """Return the check of this name; KeyError if the report has none."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)
