"""Methods × testbeds × numbers of sequential edits, measured in one way."""

from patchkit.bench.overview import overview
from patchkit.bench.plan import Contender, Plan, Testbed, read_plan
from patchkit.bench.plots import plots
from patchkit.bench.row import Row, row_from
from patchkit.bench.running import Setting, run_plan
from patchkit.bench.table import entries, markdown

__all__ = [
    "Contender",
    "Plan",
    "Row",
    "Setting",
    "Testbed",
    "entries",
    "markdown",
    "overview",
    "plots",
    "read_plan",
    "row_from",
    "run_plan",
]
