"""The command line: one file per verb. Data goes to stdout, progress and errors to stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import millrace
from millrace.cli import (
    calibrate,
    claims,
    demo,
    engine,
    policies,
    replay,
    route,
    serve,
    simulate,
    trace,
    train_predictor,
)
from millrace.cli.output import EXIT_INTERRUPTED, EXIT_USAGE, CommandError, say

app = typer.Typer(
    name="millrace",
    help="Run fleets of language-model engines; try every decision on yesterday's traffic first.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.run)
app.command("serve")(serve.run)
app.command("engine")(engine.run)
app.command("simulate")(simulate.run)
app.add_typer(trace.app, name="trace")
app.command("policies")(policies.run)
app.command("claims")(claims.run)
app.command("replay")(replay.run)
app.add_typer(route.app, name="route")
app.command("calibrate")(calibrate.run)
app.command("train-predictor")(train_predictor.run)

# Typer carries its own copy of click in newer versions: take the class from where Typer has it.
UsageError = typer.BadParameter.__mro__[1]


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"millrace {millrace.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version and leave."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole stack trace of an error.")] = False,
) -> None:
    """What comes before the verb; `--debug` is taken out before parsing."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit 0 if well, 1 failed, 2 usage, 3 unreachable, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    if "" not in sys.path:
        sys.path.insert(0, "")  # so that `--routing my_module:Policy` finds a module in this folder
    debug = "--debug" in arguments
    try:
        words = [a for a in arguments if a != "--debug"]
        code = app(words, prog_name="millrace", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except Exception as error:
        if debug:
            raise
        code = _explain(error)
    if code == EXIT_INTERRUPTED:  # which is all that Typer makes of Ctrl-C
        say("interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    """Print one line that says what to do next, and return the exit code of this kind of error."""
    if isinstance(error, CommandError):
        say(f"error: {error}")
        return error.code
    if isinstance(error, UsageError):
        if message := error.format_message():  # type: ignore[attr-defined]
            say(f"error: {message}")  # without one, the help was asked for by saying nothing
        return EXIT_USAGE
    if isinstance(error, ValueError | OSError):
        say(f"error: {_sentence(error)}")
        return EXIT_USAGE
    say(f"error: unexpected {type(error).__name__}: {error}. Run again with --debug and report the trace.")
    return 1


def _sentence(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
