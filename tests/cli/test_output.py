"""Streams, modes, escapes and encodings."""

import io
import json
import sys

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from patchkit_cli.errors import Failure
from patchkit_cli.output import Out, Row, escaped, to_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zürich 東京", "Zürich 東京"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text())
def test_escaped_text_is_printable(text: str) -> None:
    assert all(character.isprintable() or character.isspace() for character in escaped(text))
    assert "\x1b" not in escaped(text)


@given(st.recursive(st.text() | st.integers() | st.booleans(), st.lists))
def test_json_is_one_readable_line_that_means_the_same(value: object) -> None:
    text = to_json({"value": value})
    assert json.loads(text) == {"value": value}
    assert len(text.splitlines()) == 1
    assert not any(0x7F <= ord(character) < 0xA0 or character < " " for character in text)


def test_json_has_no_infinity() -> None:
    assert json.loads(to_json([float("inf"), float("nan"), 1.5])) == ["inf", "nan", 1.5]


def test_both_modes_at_once_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter, match="exclude each other"):
        Out.choose("x", json=True, quiet=True)


@pytest.fixture
def failure() -> Failure:
    return Failure(
        "the patch was made for another base",
        "base_mismatch",
        hint="pass --allow-other-base",
        lines=("expected  a", "found     b"),
        details={"expected": "a", "found": "b"},
    )


def test_an_error_is_a_sentence_a_comparison_and_a_hint(
    failure: Failure, capsys: pytest.CaptureFixture[str]
) -> None:
    Out("x", "human").error(failure)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "error: the patch was made for another base\n"
        "  expected  a\n  found     b\n"
        "\n"
        "hint: pass --allow-other-base\n"
    )


def test_an_error_is_one_json_line_on_stderr(
    failure: Failure, capsys: pytest.CaptureFixture[str]
) -> None:
    Out("x", "json").error(failure)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert json.loads(captured.err) == {
        "schema": "patchkit.error/1",
        "ok": False,
        "code": "base_mismatch",
        "message": "the patch was made for another base",
        "hint": "pass --allow-other-base",
        "details": {"expected": "a", "found": "b"},
    }


def test_a_quiet_error_has_no_hint(failure: Failure, capsys: pytest.CaptureFixture[str]) -> None:
    Out("x", "quiet").error(failure)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hint" not in captured.err


def test_tables_align_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Out("x", "human").table(("NAME", "N"), [Row("東京", 1), Row("a", 22, note="why")], right=" R")
    assert capsys.readouterr().out == "NAME   N\n東京   1\na     22\n  why\n"


def test_fields_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Out("x", "human").fields({"a": 1, "none": None, "long": "b"})
    assert capsys.readouterr().out == "  a     1\n  long  b\n"


@pytest.mark.parametrize("mode", ["json", "quiet"])
def test_other_modes_drop_human_text(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = Out.choose("x", json=mode == "json", quiet=mode == "quiet")
    out.line("a")
    out.done("b")
    out.failed("c")
    out.table(("D",), [Row(1)])
    out.fields({"e": 1})
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_an_ascii_terminal_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    Out("x", "human").done("wrote Zürich.patch")
    Out("x", "json").result({"path": "Zürich"}, quiet=None)
    sys.stdout.flush()
    assert buffer.getvalue().decode("ascii") == (
        'ok wrote Z\\xfcrich.patch\n{"schema":"patchkit.x/1","ok":true,"path":"Z\\u00fcrich"}\n'
    )


def test_colour_only_on_a_terminal_that_wants_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Out("x", "human")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    out.done("a")
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out.done("a")
    assert "\x1b[32m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    out.done("a")
    assert "\x1b[32m" not in capsys.readouterr().out
