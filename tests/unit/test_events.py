"""Progress is told in order, whatever happens; errors carry what a caller needs."""

import pytest

from patchkit import errors
from patchkit.errors import FactsError, PatchkitError
from patchkit.events import SILENT, phase


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def started(self, phase: str, total: int | None, unit: str) -> None:
        self.calls.append(("started", phase, total, unit))

    def advanced(self, phase: str, amount: int = 1) -> None:
        self.calls.append(("advanced", phase, amount))

    def finished(self, phase: str) -> None:
        self.calls.append(("finished", phase))


def test_a_phase_is_told_in_order() -> None:
    recorder = Recorder()
    with phase(recorder, "reading", 10, "B") as advance:
        advance(4)
    expected = [
        ("started", "reading", 10, "B"),
        ("advanced", "reading", 4),
        ("finished", "reading"),
    ]
    assert recorder.calls == expected


def test_a_phase_is_finished_on_errors() -> None:
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt), phase(recorder, "reading"):
        raise KeyboardInterrupt
    assert recorder.calls[-1] == ("finished", "reading")


def test_silence_accepts_everything() -> None:
    with phase(SILENT, "reading") as advance:
        advance(1)


def test_every_error_has_a_code_of_its_own_and_its_facts() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if issubclass(kind, PatchkitError)]
    assert PatchkitError in kinds
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        error = kind("what happened", hint="do this", details={"expected": 1})
        assert str(error) == error.message == "what happened"
        assert (error.hint, dict(error.details)) == ("do this", {"expected": 1})
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind is PatchkitError or kind.code in (errors.__doc__ or "")


def test_facts_errors_carry_every_problem() -> None:
    problem = errors.FormatError("x")
    assert FactsError("2 problems", problems=[problem, problem]).problems == (problem, problem)  # type: ignore[list-item]
