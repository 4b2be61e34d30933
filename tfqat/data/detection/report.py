"""Report: what was read, and everything in it that was not as it should be: counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfqat.errors import TfqatError

NAMED = 10

# Kind of finding -> what it is called, one and many.
KINDS = {
    "missing_image": ("annotated image that is not there", "annotated images that are not there"),
    "missing_annotation": ("image without an annotation file", "images without an annotation file"),
    "outside_path": ("path that leads out of its folder", "paths that lead out of their folder"),
    "broken_annotation": ("annotation that cannot be read", "annotations that cannot be read"),
    "broken_image": ("image that cannot be decoded", "images that cannot be decoded"),
    "other_size": ("image of another size than annotated", "images of another size than annotated"),
    "outside": ("box that reaches outside its image", "boxes that reach outside their image"),
    "no_area": ("box of no area", "boxes of no area"),
    "not_finite": ("box that is not finite", "boxes that are not finite"),
    "unknown_class": ("object of a class that is not in the map", "objects of a class that is not in the map"),
    "no_box": ("object with a segmentation only", "objects with a segmentation only"),
    "unknown_image": ("object of an image that is not listed", "objects of an image that is not listed"),
    "duplicate": ("entry that is there twice", "entries that are there twice"),
    "broken_record": ("record that cannot be read", "records that cannot be read"),
    "truncated": ("damaged TFRecord file", "damaged TFRecord files"),
    "missing_shard": ("TFRecord file that is not there", "TFRecord files that are not there"),
    "empty_split": ("split without an image", "splits without an image"),
    "no_boxes": ("split without a box", "splits without a box"),
    "crowd": ("crowd box", "crowd boxes"),
}
LEFT_OUT, DROPPED, CLIPPED, KEPT, TOLD = "left out", "dropped", "clipped", "kept", "as it is"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: a key of KINDS.
        where: the image, file or entry.
        detail: what was received there.
        done: what reading did about it.
    """

    kind: str
    where: str
    detail: str
    done: str

    def wished(self) -> bool:
        """Whether reading did what an option asked for, so that strict reading has nothing against it."""
        return self.done == KEPT or self.kind == "crowd"


@dataclass(frozen=True)
class Report:
    """What one split gave.

    Attributes:
        source: the split, as messages name it.
        images, boxes: how many are left.
        without_boxes: how many of the images show only background.
        findings: everything that was not as it should be, in the order it was met.
    """

    source: str
    images: int
    boxes: int
    without_boxes: int
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        background = f" ({self.without_boxes} images without boxes)" if self.without_boxes else ""
        head = f"{self.source}: {self.images} images, {self.boxes} boxes{background}"
        return "\n".join([head, *lines(self.findings)])


def lines(findings: Sequence[Finding]) -> list[str]:
    """A headline for each kind, with what was done; below it the first ones by name."""
    told = []
    for kind, done in dict.fromkeys((finding.kind, finding.done) for finding in findings):
        group = [finding for finding in findings if (finding.kind, finding.done) == (kind, done)]
        told.append(f"  {len(group)} {KINDS[kind][len(group) > 1]}: {done}")
        told += [f"    {finding.where}: {finding.detail}" for finding in group[:NAMED]]
        if len(group) > NAMED:
            told.append(f"    and {len(group) - NAMED} more")
    return told


def refuse(source: str, findings: Sequence[Finding]) -> None:
    """Raises TfqatError with all findings that are no wish, where there are any: strict reading."""
    refused = [finding for finding in findings if not finding.wished()]
    if refused:
        count = f"{len(refused)} problem{'s' if len(refused) > 1 else ''}"
        tail = "Mend the data, or read it without strict: then what stands behind each colon is done."
        raise TfqatError("\n".join([f"{source}: strict reading found {count}:", *lines(refused), tail]))
