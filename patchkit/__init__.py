"""Small, exact, reversible edits for language models.

Public names are imported on first use: `import patchkit` loads neither torch nor transformers.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchkit.apply import ApplyPlan as ApplyPlan
    from patchkit.apply import ApplyReport as ApplyReport
    from patchkit.apply import apply_patches as apply_patches
    from patchkit.apply import plan_apply as plan_apply
    from patchkit.base import load_model as load_model
    from patchkit.base import load_tokenizer as load_tokenizer
    from patchkit.compose import ComposeReport as ComposeReport
    from patchkit.compose import Composition as Composition
    from patchkit.compose import Part as Part
    from patchkit.compose import compose as compose
    from patchkit.diff import AppliedDiff as AppliedDiff
    from patchkit.diff import CheckpointDiff as CheckpointDiff
    from patchkit.diff import PatchDiff as PatchDiff
    from patchkit.diff import diff_applied as diff_applied
    from patchkit.diff import diff_checkpoints as diff_checkpoints
    from patchkit.diff import diff_patches as diff_patches
    from patchkit.diff.answers import Answer as Answer
    from patchkit.diff.answers import Speaker as Speaker
    from patchkit.diff.answers import diff_answers as diff_answers
    from patchkit.editing import Edit as Edit
    from patchkit.editing import EditPlan as EditPlan
    from patchkit.editing import EditReport as EditReport
    from patchkit.editing import edit as edit
    from patchkit.editing import plan_edit as plan_edit
    from patchkit.editing.rebuild import rebuild as rebuild
    from patchkit.editing.recipe import Recipe as Recipe
    from patchkit.editing.recipe import read_recipe as read_recipe
    from patchkit.errors import AccessDenied as AccessDenied
    from patchkit.errors import BaseMismatch as BaseMismatch
    from patchkit.errors import CheckpointError as CheckpointError
    from patchkit.errors import ExtraMissing as ExtraMissing
    from patchkit.errors import FactsError as FactsError
    from patchkit.errors import FormatError as FormatError
    from patchkit.errors import HubError as HubError
    from patchkit.errors import HubUnreachable as HubUnreachable
    from patchkit.errors import InvariantError as InvariantError
    from patchkit.errors import OutputError as OutputError
    from patchkit.errors import PatchkitError as PatchkitError
    from patchkit.errors import PatchWithdrawn as PatchWithdrawn
    from patchkit.errors import RecipeError as RecipeError
    from patchkit.errors import SignatureError as SignatureError
    from patchkit.errors import SolveError as SolveError
    from patchkit.errors import TaskError as TaskError
    from patchkit.errors import UnsupportedModel as UnsupportedModel
    from patchkit.evaluate import EvalReport as EvalReport
    from patchkit.evaluate import evaluate as evaluate
    from patchkit.events import SILENT as SILENT
    from patchkit.events import Progress as Progress
    from patchkit.export import ExportReport as ExportReport
    from patchkit.export import export as export
    from patchkit.extract import Extraction as Extraction
    from patchkit.extract import ExtractReport as ExtractReport
    from patchkit.extract import extract as extract
    from patchkit.facts.reading import Fact as Fact
    from patchkit.facts.reading import FactsFile as FactsFile
    from patchkit.facts.reading import MultiHop as MultiHop
    from patchkit.facts.reading import Probe as Probe
    from patchkit.facts.reading import Problem as Problem
    from patchkit.facts.reading import read_facts as read_facts
    from patchkit.facts.reading import to_jsonl as to_jsonl
    from patchkit.facts.snippets import Snippets as Snippets
    from patchkit.facts.snippets import read_snippets as read_snippets
    from patchkit.hub import Found as Found
    from patchkit.hub import FoundBase as FoundBase
    from patchkit.hub import Logged as Logged
    from patchkit.hub import PullReport as PullReport
    from patchkit.hub import PushReport as PushReport
    from patchkit.hub import UpdatePlan as UpdatePlan
    from patchkit.hub import UpdateReport as UpdateReport
    from patchkit.hub import YankReport as YankReport
    from patchkit.hub import find_base as find_base
    from patchkit.hub import log as log
    from patchkit.hub import plan_update as plan_update
    from patchkit.hub import pull as pull
    from patchkit.hub import push as push
    from patchkit.hub import search as search
    from patchkit.hub import update as update
    from patchkit.hub import yank as yank
    from patchkit.live import Handle as Handle
    from patchkit.live import applied as applied
    from patchkit.live import apply as apply
    from patchkit.patch.patch import Patch as Patch
    from patchkit.patch.reader import PatchInfo as PatchInfo
    from patchkit.patch.reader import read_info as read_info
    from patchkit.report import Check as Check
    from patchkit.report import Report as Report
    from patchkit.revert import RevertPlan as RevertPlan
    from patchkit.revert import RevertReport as RevertReport
    from patchkit.revert import plan_revert as plan_revert
    from patchkit.revert import revert as revert
    from patchkit.runtime import Attachment as Attachment
    from patchkit.runtime import attach as attach
    from patchkit.runtime import attached as attached
    from patchkit.scoring.continuations import Continuation as Continuation
    from patchkit.scoring.continuations import continuation as continuation
    from patchkit.signing import check_signature as check_signature
    from patchkit.signing import sign as sign
    from patchkit.tensors.checkpoint import Checkpoint as Checkpoint
    from patchkit.tensors.refs import resolve_base as resolve_base
    from patchkit.verify import verify_folder as verify_folder
    from patchkit.verify import verify_patch as verify_patch


__version__ = "0.1.0"

# Where each public name is defined.
_HOME = {
    "AccessDenied": "errors",
    "Answer": "diff.answers",
    "applied": "live",
    "AppliedDiff": "diff",
    "apply": "live",
    "apply_patches": "apply",
    "ApplyPlan": "apply",
    "ApplyReport": "apply",
    "attach": "runtime",
    "attached": "runtime",
    "Attachment": "runtime",
    "BaseMismatch": "errors",
    "Check": "report",
    "check_signature": "signing",
    "Checkpoint": "tensors.checkpoint",
    "CheckpointDiff": "diff",
    "CheckpointError": "errors",
    "compose": "compose",
    "ComposeReport": "compose",
    "Composition": "compose",
    "Continuation": "scoring.continuations",
    "continuation": "scoring.continuations",
    "diff_answers": "diff.answers",
    "diff_applied": "diff",
    "diff_checkpoints": "diff",
    "diff_patches": "diff",
    "Edit": "editing",
    "edit": "editing",
    "EditPlan": "editing",
    "EditReport": "editing",
    "EvalReport": "evaluate",
    "evaluate": "evaluate",
    "export": "export",
    "ExportReport": "export",
    "extract": "extract",
    "Extraction": "extract",
    "ExtractReport": "extract",
    "ExtraMissing": "errors",
    "Fact": "facts.reading",
    "FactsError": "errors",
    "FactsFile": "facts.reading",
    "find_base": "hub",
    "FormatError": "errors",
    "Found": "hub",
    "FoundBase": "hub",
    "Handle": "live",
    "HubError": "errors",
    "HubUnreachable": "errors",
    "InvariantError": "errors",
    "load_model": "base",
    "load_tokenizer": "base",
    "log": "hub",
    "Logged": "hub",
    "MultiHop": "facts.reading",
    "OutputError": "errors",
    "Part": "compose",
    "Patch": "patch.patch",
    "PatchDiff": "diff",
    "PatchInfo": "patch.reader",
    "PatchkitError": "errors",
    "PatchWithdrawn": "errors",
    "plan_apply": "apply",
    "plan_edit": "editing",
    "plan_revert": "revert",
    "plan_update": "hub",
    "Probe": "facts.reading",
    "Problem": "facts.reading",
    "Progress": "events",
    "pull": "hub",
    "PullReport": "hub",
    "push": "hub",
    "PushReport": "hub",
    "read_facts": "facts.reading",
    "read_info": "patch.reader",
    "read_recipe": "editing.recipe",
    "read_snippets": "facts.snippets",
    "rebuild": "editing.rebuild",
    "Recipe": "editing.recipe",
    "RecipeError": "errors",
    "Report": "report",
    "resolve_base": "tensors.refs",
    "revert": "revert",
    "RevertPlan": "revert",
    "RevertReport": "revert",
    "sign": "signing",
    "SignatureError": "errors",
    "search": "hub",
    "SILENT": "events",
    "Snippets": "facts.snippets",
    "SolveError": "errors",
    "Speaker": "diff.answers",
    "TaskError": "errors",
    "to_jsonl": "facts.reading",
    "UnsupportedModel": "errors",
    "update": "hub",
    "UpdatePlan": "hub",
    "UpdateReport": "hub",
    "verify_folder": "verify",
    "verify_patch": "verify",
    "yank": "hub",
    "YankReport": "hub",
}

__all__ = sorted(("__version__", *_HOME))


def __getattr__(name: str) -> object:
    """Import the module that defines `name`; AttributeError for anything not exported."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """This package, in which a verb such as `apply` wins over the module of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds a submodule in its package as soon as anything imports it;
        # without this, `patchkit.evaluate` would be a function or a module depending on history.
        if name not in _HOME or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
