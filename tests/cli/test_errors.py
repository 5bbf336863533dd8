"""What a person, a program and a script see of each kind of exception."""

import errno
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from patchkit.errors import BaseMismatch, FactsError, FormatError
from patchkit.facts.fact import Problem
from patchkit_cli.errors import ExitCode, explain
from patchkit_cli.main import guarded
from patchkit_cli.options import JsonFlag, QuietFlag


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (FormatError("a.patch is cut short"), "format_invalid", "a.patch is cut short"),
        (OSError(errno.ENOSPC, "No space left on device", "out"), "system_failed", "out: no space"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "system_failed", "x: permission"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), "system_failed", "x: no such file"),
        (OutOfMemoryError("CUDA"), "out_of_memory", "the device ran out of memory"),
        (MemoryError(), "out_of_memory", "this machine ran out of memory"),
    ],
)
def test_an_expected_failure_has_a_sentence(error: Exception, code: str, message: str) -> None:
    failure = explain(error)
    assert (failure.code, failure.exit_code) == (code, ExitCode.FAILED)
    assert failure.message.startswith(message)


def test_a_full_disk_says_what_helps() -> None:
    assert "free some space" in str(explain(OSError(errno.ENOSPC, "No space left")).hint)


def test_the_two_values_that_disagree_stand_under_each_other() -> None:
    details = {"expected": "sha256:aa", "found": "sha256:bb", "tensor": "w"}
    failure = explain(BaseMismatch("another base", details=details))
    assert failure.lines == ("expected  sha256:aa", "found     sha256:bb")
    assert failure.details == details


def test_every_bad_line_is_listed() -> None:
    problems = [
        Problem(7, "prompt", '"subject" does not occur in "prompt"', "use {} for it"),
        Problem(119, "target_new", 'unknown key "target_new"'),
        Problem(None, None, "no facts"),
    ]
    failure = explain(FactsError("bad.jsonl has 3 problems", problems=problems))
    assert failure.lines == (
        'line 7    "subject" does not occur in "prompt" (use {} for it)',
        'line 119  unknown key "target_new"',
        "no facts",
    )
    listed = failure.details["problems"]
    assert isinstance(listed, list)
    assert listed[0]["suggestion"] == "use {} for it"


def raising(error: BaseException) -> typer.Typer:
    def command(json: JsonFlag = False, quiet: QuietFlag = False) -> None:
        raise error

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(guarded("x", command))
    return app


def test_a_bug_leaves_its_traceback_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(raising(ZeroDivisionError("secret")), ["--json"])
    assert result.exit_code == ExitCode.BUG
    assert result.stdout == ""
    failure = json.loads(result.stderr)
    assert failure["code"] == "internal_bug"
    log = Path(failure["details"]["traceback"])
    assert "ZeroDivisionError: secret" in log.read_text()
    assert str(log) in failure["message"]
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHKIT_DEBUG", "1")
    result = CliRunner().invoke(raising(ZeroDivisionError("why")))
    assert result.exit_code == ExitCode.BUG
    assert "Traceback (most recent call last)" in result.stderr


def test_ctrl_c_is_130() -> None:
    result = CliRunner().invoke(raising(KeyboardInterrupt()))
    assert (result.exit_code, result.stderr) == (ExitCode.INTERRUPTED, "error: interrupted\n")


def test_an_escape_in_a_message_is_shown_as_text() -> None:
    result = CliRunner().invoke(raising(FormatError("bad name \x1b]0;pwned\x07")))
    assert "\x1b" not in result.stderr
    assert "\\x1b]0;pwned\\x07" in result.stderr
