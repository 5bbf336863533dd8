"""Gather benchmarks into one file, and put the table and the figures into `docs/benchmarks.md`.

    python -m benchmarks.methods.report build/atlas/results.json build/worldly/results.json
    python -m benchmarks.methods.report --tuned build/*-tune/results.json
    python -m benchmarks.methods.report --timed

The first writes `benchmarks/results/methods.json`, the figures beside it, that of the README too,
and what stands between the markers of the page; the second writes `tuning.json`, prints each
method's best setting and puts all of them into the page; the third puts the measured and estimated
seconds there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.methods.figure import figure
from benchmarks.testbeds.page import row as line
from patchkit.bench import Row, markdown, overview, plots, row_from

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"


def read_rows(files: Sequence[Path]) -> list[Row]:
    """Return the rows of several results, a later one in the place of an earlier of its kind."""
    found = {}
    for file in files:
        for data in json.loads(file.read_text("utf-8")):
            row = row_from(data)
            found[row.testbed, row.label, row.batch, row.edits, row.seed, row.split] = row
    return list(found.values())


def check_testbeds(rows: Sequence[Row]) -> None:
    """Refuse rows of two trainings under one name, whose figures cannot stand side by side."""
    known: dict[str, str] = {}
    for row in rows:
        digest = known.setdefault(row.testbed, row.testbed_digest)
        if digest != row.testbed_digest:
            raise SystemExit(f"{row.testbed} is both {digest:.12} and {row.testbed_digest:.12}")


def best(rows: Sequence[Row]) -> dict[str, Row]:
    """Return, by label without its grid, the row with the highest score at the most edits."""
    found: dict[str, Row] = {}
    for row in rows:
        name = row.label.split(" ")[0]
        before = found.get(name)
        if before is None or _rank(row) > _rank(before):
            found[name] = row
    return found


def _rank(row: Row) -> tuple[int, float]:
    return row.edits, -1.0 if row.score is None else row.score


def placed(page: str, name: str, content: str) -> str:
    """Return the page with `content` between its markers of that name."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    head, found, rest = page.partition(start)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{PAGE.name} has no place for {name}")
    return f"{head}{start}\n\n{content.strip()}\n\n{end}{tail}"


def speed_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the comparisons with the published loops as a table in Markdown."""
    sizes = ("model", "method", "facts", "d_in", "device")
    heads = (*sizes, "s", "published loop, s", "times as fast")
    keys = (*sizes, "seconds", "baseline_seconds", "speedup")
    rule = ("---",) * 2 + ("---:",) * 2 + ("---",) + ("---:",) * 3
    cells = [[row.get(key, "–") for key in keys] for row in rows]
    return "\n".join(line(*each) for each in (heads, rule, *cells))


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return measured and estimated seconds of an edit as a table in Markdown."""
    heads = ("", "method", "facts", "d", "d_in", "layers", "s", "predicted from the one before, s")
    keys = ("kind", "method", "facts", "d", "d_in", "layers")
    lines = [line(*heads), line(*("---",) * 2, *("---:",) * 6)]
    for row in rows:
        before = row.get("predicted")
        predicted = "–" if before is None else f"{sum(before.values()):.1f}"
        lines.append(line(*(row[key] for key in keys), f"{row['seconds']:,.1f}", predicted))
    return "\n".join(lines)


def tuning_table(rows: Sequence[Row]) -> str:
    """Return every setting tried on one testbed, the best of each method first and in bold."""
    winners = {row.label for row in best(rows).values()}
    order = sorted(rows, key=lambda row: (row.label.split(" ")[0], -_rank(row)[1]))
    lines = [line("setting", "score"), line("---", "---:")]
    for row in order:
        score = "–" if row.score is None else f"{row.score:.3f}"
        marked = f"**{row.label}**" if row.label in winners else row.label
        lines.append(line(marked, score))
    return "\n".join(lines)


def write_tuning(rows: Sequence[Row]) -> None:
    """Write all settings that were tried, and print the winners."""
    text = json.dumps([row.as_dict() for row in rows], indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "tuning.json").write_text(text, "utf-8")
    tables = []
    for testbed in dict.fromkeys(row.testbed for row in rows):
        mine = [row for row in rows if row.testbed == testbed]
        tables.append(f"### On {testbed}\n\n{tuning_table(mine)}")
        for name, row in best(mine).items():
            print(f"{testbed}, {name}: {row.label}, score {row.score} at {row.edits} edits")
    page = PAGE.read_text("utf-8")
    PAGE.write_text(placed(page, "tuning", "\n\n".join(tables)), "utf-8")


def write_times() -> None:
    """Put what `edit_speed` and `edit_cost` have written into the page."""
    page = PAGE.read_text("utf-8")
    tables = {"speed": ("edit_speed.json", speed_table), "cost": ("edit_cost.json", cost_table)}
    for name, (file, table) in tables.items():
        if (RESULTS / file).is_file():
            page = placed(page, name, table(json.loads((RESULTS / file).read_text("utf-8"))))
    PAGE.write_text(page, "utf-8")


def _looked_at(rows: Sequence[Row], one: Row) -> int:
    """Return how many numbers of edits there are for the figure that a row would be in."""
    kin = (row for row in rows if (row.testbed, row.batch) == (one.testbed, one.batch))
    return len({row.edits for row in kin})


def write(rows: Sequence[Row]) -> None:
    """Write the file, the figures and the page, of one training for each testbed."""
    check_testbeds(rows)
    RESULTS.mkdir(parents=True, exist_ok=True)
    data = [row.as_dict() for row in rows]
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "methods.json").write_text(text, "utf-8")
    (RESULTS / "methods.png").write_bytes(figure(rows))
    figures = plots([row for row in rows if _looked_at(rows, row) > 1])
    for name, content in figures.items():
        (RESULTS / f"methods-{name}").write_bytes(content)
    shown = [f"![{name[:-4]}](../benchmarks/results/methods-{name})" for name in figures]
    page = placed(PAGE.read_text("utf-8"), "overview", overview(rows))
    page = placed(page, "table", markdown(rows))
    page = placed(page, "figures", "\n\n".join(shown))
    PAGE.write_text(page, "utf-8")


def main() -> None:
    """Read the options and write, or print the best settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="*")
    parser.add_argument("--tuned", action="store_true", help="these are settings that were tried")
    parser.add_argument("--timed", action="store_true", help="only show seconds that were measured")
    options = parser.parse_args()
    rows = read_rows(options.results)
    if options.timed:
        return write_times()
    return write_tuning(rows) if options.tuned else write(rows)


if __name__ == "__main__":
    main()
