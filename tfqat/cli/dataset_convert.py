"""`tfqat dataset-convert`: writes a detection data set as TFRecord files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tfqat.cli.options import CommandError, Debug

EXAMPLE = "tfqat dataset-convert --voc data/bccd --split train --output records/"


def dataset_convert(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to.")],
    voc: Annotated[
        Path | None,
        typer.Option("--voc", metavar="DIR", help="A Pascal VOC folder: Annotations, ImageSets/Main, JPEGImages."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="With --voc: NAME of ImageSets/Main/NAME.txt.")
    ] = None,
    coco: Annotated[Path | None, typer.Option("--coco", metavar="FILE", help="A COCO json.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="With --coco: the folder of the images.")
    ] = None,
    shards: Annotated[
        int | None, typer.Option("--shards", metavar="N", min=1, help="Files to write; else one a thousand images.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="A class to write, once for each, in this order; else all."),
    ] = None,
    crowd: Annotated[
        Literal["keep", "drop"], typer.Option("--crowd", metavar="WHAT", help="Boxes of crowds: keep or drop.")
    ] = "keep",
    degenerate: Annotated[
        Literal["drop", "keep"], typer.Option("--degenerate", metavar="WHAT", help="Boxes of no area: drop or keep.")
    ] = "drop",
    outside: Annotated[
        Literal["clip", "drop"],
        typer.Option("--outside", metavar="WHAT", help="Boxes that reach outside the image: clip or drop."),
    ] = "clip",
    strict: Annotated[
        bool, typer.Option("--strict", metavar="", help="Write nothing where anything is not as it should be.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write Pascal VOC or COCO as TFRecord files; says what of it cannot be used."""
    from tfqat.cli.run import quiet_start

    _check(voc, split, coco, images, output)
    with quiet_start():
        from tfqat.data.detection.clean import Choices
        from tfqat.jobs import dataset_convert as job

    choices = Choices(crowd, degenerate, outside, strict)
    if voc is not None:
        job.convert_voc(voc, str(split), output, shards, classes, choices)
    elif coco is not None and images is not None:
        job.convert_coco(coco, images, output, shards, classes, choices)


def _check(voc: Path | None, split: str | None, coco: Path | None, images: Path | None, output: Path) -> None:
    if (voc is None) == (coco is None):
        raise CommandError("name one data set: --voc DIR with --split, or --coco FILE with --images")
    for kind, given, name, value in (("--voc", voc, "--split", split), ("--coco", coco, "--images", images)):
        if given is not None and value is None:
            raise CommandError(f"{kind} needs {name}")
        if given is None and value is not None:
            raise CommandError(f"{name} {value}: goes with {kind} only")
    if output.exists() and not output.is_dir():
        raise CommandError(f"--output: expected a folder, received the file {str(output)!r}")
