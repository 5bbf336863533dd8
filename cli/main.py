"""The application: its commands, their groups, and what happens to an exception."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from . import (
    apply,
    bench,
    cache,
    compose,
    diff,
    edit,
    eval,
    export,
    extract,
    facts,
    inspect,
    log,
    pull,
    push,
    revert,
    search,
    sign,
    stats,
    try_,
    update,
    verify,
    yank,
)
from .errors import EXIT_MEANINGS, explain
from .hub_patches import with_pulled
from .output import Out

_EXITS = "Exit codes: " + " · ".join(f"{code.value} {text}" for code, text in EXIT_MEANINGS.items())

SESSION = (
    "patchkit edit facts.jsonl -o my.patch.safetensors",
    "patchkit verify my.patch.safetensors",
    "patchkit apply atlas my.patch.safetensors -o ./patched",
)

GROUPS: dict[str, tuple[tuple[str, Callable[..., None], tuple[str, ...]], ...]] = {
    "Make": (
        ("edit", edit.edit, edit.EXAMPLES),
        ("extract", extract.extract, extract.EXAMPLES),
        ("eval", eval.evaluate, eval.EXAMPLES),
        ("bench", bench.bench, bench.EXAMPLES),
    ),
    "Look": (
        ("inspect", inspect.inspect, inspect.EXAMPLES),
        ("verify", verify.verify, verify.EXAMPLES),
        ("diff", diff.diff, diff.EXAMPLES),
        ("facts", facts.facts, facts.EXAMPLES),
        ("stats", stats.stats, stats.EXAMPLES),
    ),
    "Use": (
        ("apply", apply.apply, apply.EXAMPLES),
        ("revert", revert.revert, revert.EXAMPLES),
        ("update", update.update, update.EXAMPLES),
        ("compose", compose.compose, compose.EXAMPLES),
        ("try", try_.try_prompt, try_.EXAMPLES),
    ),
    "Share": (
        ("push", push.push, push.EXAMPLES),
        ("pull", pull.pull, pull.EXAMPLES),
        ("search", search.search, search.EXAMPLES),
        ("log", log.log, log.EXAMPLES),
        ("yank", yank.yank, yank.EXAMPLES),
        ("export", export.export, export.EXAMPLES),
        ("sign", sign.sign, sign.EXAMPLES),
    ),
}


def examples(commands: tuple[str, ...]) -> str:
    """The examples as the foot of a help page."""
    return "Examples\n\n" + "\n".join(f"$ {command}" for command in commands)


def guarded(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """`command` with every exception shown in the chosen mode and turned into an exit code."""

    @functools.wraps(command)
    def run_guarded(**given: Any) -> None:
        try:
            command(**with_pulled(name, given))
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            failure = explain(error)
            Out.choose(name, json=given["json"], quiet=given["quiet"]).error(failure)
            raise typer.Exit(failure.exit_code) from error

    return run_guarded


def _version(wanted: bool) -> None:
    if wanted:
        from patchkit import __version__

        typer.echo(f"patchkit {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Small, exact, reversible edits for language models."""


def build() -> typer.Typer:
    """The application with all its commands."""
    app = typer.Typer(name="patchkit", no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback(epilog=f"{examples(SESSION)}\n\n{_EXITS}")(_root)
    for panel, commands in GROUPS.items():
        for name, command, shown in commands:
            app.command(name, rich_help_panel=panel, epilog=examples(shown))(guarded(name, command))
    for name, command, shown in cache.COMMANDS:
        group = guarded(f"cache-{name}", command)
        cache.app.command(name, epilog=examples(shown))(group)
    app.add_typer(cache.app, name="cache", rich_help_panel="Look")
    return app


app = build()


def run() -> None:
    """Entry point of the installed command."""
    app()
