"""Which sentence, hint and exit code an exception becomes."""

import errno
import os
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from patchkit.errors import AccessDenied, FactsError, LocatedProblem, PatchkitError


class ExitCode(IntEnum):
    """What the command's exit status means; 2 is given by Typer itself."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NEGATIVE = 3
    LOGIN = 4
    BUG = 70
    INTERRUPTED = 130


EXIT_MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "done, verdict good",
    ExitCode.FAILED: "expected failure",
    ExitCode.USAGE: "wrong usage",
    ExitCode.NEGATIVE: "negative verdict",
    ExitCode.LOGIN: "a login is needed",
    ExitCode.BUG: "a bug in patchkit",
    ExitCode.INTERRUPTED: "interrupted",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception in the words of the command line."""

    message: str
    code: str
    exit_code: ExitCode = ExitCode.FAILED
    hint: str | None = None
    lines: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)
    traceback: str | None = None


def explain(error: BaseException) -> Failure:
    """What `error` is shown as; anything unknown is a bug, its traceback kept in a file."""
    if isinstance(error, FactsError):
        return _facts_failure(error)
    if isinstance(error, PatchkitError):
        return _library_failure(error)
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", "interrupted", ExitCode.INTERRUPTED)
    if isinstance(error, OSError):
        return _system_failure(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, named without importing torch
        hint = "use a smaller --batch-size, or --device cpu"
        return Failure("the device ran out of memory", "out_of_memory", hint=hint)
    if isinstance(error, MemoryError):
        return Failure("this machine ran out of memory", "out_of_memory")
    return _bug(error)


def _library_failure(error: PatchkitError) -> Failure:
    lines: tuple[str, ...] = ()
    if {"expected", "found"} <= error.details.keys():
        lines = tuple(f"{key:8}  {error.details[key]}" for key in ("expected", "found"))
    hint = error.hint
    if hint is None and isinstance(error.__cause__, OSError):
        hint = _system_hint(error.__cause__)
    code = ExitCode.LOGIN if isinstance(error, AccessDenied) else ExitCode.FAILED
    return Failure(error.message, error.code, code, hint, lines, dict(error.details))


def _facts_failure(error: FactsError) -> Failure:
    lines = problem_lines(error.problems)
    problems = [problem_data(problem) for problem in error.problems]
    details = {**error.details, "problems": problems}
    return Failure(error.message, error.code, hint=error.hint, lines=lines, details=details)


def problem_lines(problems: Sequence[LocatedProblem]) -> tuple[str, ...]:
    """`line 7   what is wrong (what to do)`, aligned."""
    places = [_place(problem) for problem in problems]
    width = max(map(len, places), default=0)
    lines = []
    for place, problem in zip(places, problems, strict=True):
        suggestion = getattr(problem, "suggestion", None)
        advice = f" ({suggestion})" if suggestion else ""
        lines.append(f"{place:{width}}  {problem.message}{advice}".lstrip())
    return tuple(lines)


def _place(problem: LocatedProblem) -> str:
    record = getattr(problem, "record", None)
    if problem.line is not None:
        return f"line {problem.line}"
    return f"record {record}" if record is not None else ""


def problem_data(problem: LocatedProblem) -> dict[str, object]:
    """A problem of a facts file as data."""
    names = ("line", "record", "key", "message", "suggestion")
    return {name: getattr(problem, name, None) for name in names}


def _system_failure(error: OSError) -> Failure:
    reason = error.strerror or str(error) or type(error).__name__
    name = f"{error.filename}: " if error.filename is not None else ""
    message = f"{name}{reason[:1].lower()}{reason[1:]}"
    return Failure(message, "system_failed", hint=_system_hint(error))


def _system_hint(error: OSError) -> str | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or choose another place with -o"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "check the permissions, or choose another place with -o"
    return None


def _bug(error: BaseException) -> Failure:
    text = "".join(traceback.format_exception(error))
    handle, name = tempfile.mkstemp(prefix="patchkit-", suffix=".log", text=True)
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
        log.write(text)
    shown = text if os.environ.get("PATCHKIT_DEBUG") == "1" else None
    return Failure(
        f"this is a bug in patchkit ({type(error).__name__}); details written to {Path(name)}",
        "internal_bug",
        ExitCode.BUG,
        hint="please report it with that file",
        details={"traceback": name},
        traceback=shown,
    )
