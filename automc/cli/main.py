"""`automc`: parse, one API call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from automc.cli import bundle, config, doctor, listing, model, predictions, profile, runs, search, technique
from automc.errors import DISK_ERRORS, AutomcError, RunInterrupted


class Commands(TyperGroup):
    """Ctrl-C in any command leaves by the exit code of an interruption; Typer would leave by 130, in silence."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _interruptions_told():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _interruptions_told():
            return super().invoke(ctx)


@contextmanager
def _interruptions_told() -> Iterator[None]:
    """Where a run is to be resumed the search has said so by then, by a RunInterrupted of its own."""
    try:
        yield
    except KeyboardInterrupt:
        raise RunInterrupted(
            "interrupted; there is nothing to resume", next_step="run the same command again"
        ) from None


app = typer.Typer(
    name="automc",
    cls=Commands,
    help="Compression search that proves its numbers on your device.\n\n"
    "Exit codes: 0 done, 1 the machine or a bug, 2 your file or argument, 3 nothing meets the constraints, "
    "4 a run or bundle failed its checks, 5 interrupted and resumable.\n\n"
    "Tab completes commands, options, runs, profiles, techniques, spaces and rules in a shell that was told to by "
    "--install-completion.\n\n"
    "Example: automc demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for commands in (search, doctor, listing, runs, bundle, profile, predictions, model, technique, config):
    commands.register(app)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("automc"))
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What stands before a command; `main` has already taken --debug out."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with the exit code of `automc.errors`."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given or bool(os.environ.get("AUTOMC_DEBUG"))
    try:
        app([argument for argument in given if argument != "--debug"], prog_name="automc")
    except AutomcError as error:
        if debug:
            raise
        _fail(error.message, error.next_step, error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", None, RunInterrupted.exit_code)
    except OSError as error:
        if debug or error.errno not in DISK_ERRORS:
            raise
        where = error.filename or "a file"
        _fail(f"{where}: {error.strerror}", "make it writable or make room, then run the same command again", 1)
    sys.exit(0)  # not reached: app() leaves by SystemExit


def _fail(message: str, next_step: str | None, code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"automc: {message}", file=sys.stderr)
    if next_step:
        print(f"  next: {next_step}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
