"""A few hundred executions of every fuzz target; `python -m tests.fuzz.run` makes many more."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fuzz.engine import HANG, Meter, seeded
from tests.fuzz.run import NAMES, SHARES
from tests.fuzz.targets import Target, targets


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Target]:
    return targets(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", NAMES)
def test_only_typed_errors_come_out(made: Mapping[str, Target], name: str) -> None:
    if name not in made:
        pytest.skip("model-signing is not installed")
    meter = Meter(made[name])
    seeded(meter, round(100 * SHARES[name]), seed=7)
    assert meter.kinds == {}
    assert 0 < meter.accepted < meter.executions or not meter.target.errors


def test_every_target_has_a_share(made: Mapping[str, Target]) -> None:
    assert set(made) | {"signature"} == set(NAMES) == set(SHARES)


def test_a_crash_and_a_hang_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = iter([0.0, 1.0, 1.0, 2.0 + HANG, 9.0, 9.0])
    monkeypatch.setattr("time.process_time", lambda: next(clock))

    def run(data: bytes) -> None:
        if data == b"crash":
            raise KeyError(data)
        if data == b"bad":
            raise ValueError(data)

    meter = Meter(Target(run, (), (), (ValueError,)), tmp_path)
    outcomes = [meter.execute(data) for data in (b"crash", b"slow", b"bad")]
    assert outcomes[0].startswith("KeyError test_short.py:")
    assert outcomes[1] == "accepted"
    assert (meter.executions, meter.crashes, meter.hangs, meter.accepted) == (3, 1, 1, 1)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"crash", b"slow"]
