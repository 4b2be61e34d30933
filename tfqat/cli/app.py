"""The app: the table of subcommands, and the help of `tfqat` itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tfqat import __version__
from tfqat.cli import (
    analyze,
    convert,
    dataset_convert,
    evaluate,
    export,
    inference,
    init,
    inspect,
    quantize,
    targets,
    train,
    validate,
    verify,
)
from tfqat.cli.cache_option import CacheCommand
from tfqat.cli.options import Debug

# In the order of the work, which is the order in the help: module, function, class of the command.
COMMANDS: tuple[tuple[Any, Callable[..., None], type[TyperCommand]], ...] = (
    (init, init.init, TyperCommand),
    (targets, targets.targets, TyperCommand),
    (validate, validate.validate, TyperCommand),
    (inspect, inspect.inspect, TyperCommand),
    (quantize, quantize.quantize, TyperCommand),
    (train, train.train, TyperCommand),
    (evaluate, evaluate.evaluate, TyperCommand),
    (inference, inference.inference, TyperCommand),
    (analyze, analyze.analyze, TyperCommand),
    (export, export.export, CacheCommand),
    (verify, verify.verify, CacheCommand),
    (convert, convert.convert, TyperCommand),
    (dataset_convert, dataset_convert.dataset_convert, TyperCommand),
)


def command() -> Callable[..., Any]:
    """The command line as a callable."""
    app = typer.Typer(
        add_completion=False,
        invoke_without_command=True,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["--help", "-h"]},
        epilog=_example(train.EXAMPLE),
    )
    app.callback()(_tfqat)
    for module, function, kind in COMMANDS:
        app.command(cls=kind, epilog=_example(module.EXAMPLE))(function)
    return typer.main.get_command(app)


def _example(line: str) -> str:
    return f"Example: [bold]{line}[/bold]"


def _print_version(asked: bool) -> None:
    if asked:
        print(f"tfqat {__version__}")
        raise typer.Exit()


def _tfqat(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Debug = False,
) -> None:
    """INT8 quantization-aware training for Keras 3, from one YAML spec to a TensorRT cache."""
    if context.invoked_subcommand is None:
        print(context.get_help())
