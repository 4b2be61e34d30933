"""Scaling: the sizes of one EfficientDet, which its compound coefficient decides (arXiv 1911.09070, table 1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scaling:
    """Sizes of one net.

    Attributes:
        image_size: height and width of its images.
        backbone: name in keras.applications.
        width: channels of the BiFPN and the heads.
        depth: how often the BiFPN is repeated.
        head_depth: convolutions of each head before its last.
        weighted: fast normalized fusion; a plain sum where not, since the largest nets train unstably with weights.
    """

    image_size: int
    backbone: str
    width: int
    depth: int
    head_depth: int
    weighted: bool = True


SCALINGS = {
    "efficientdet_d0": Scaling(512, "EfficientNetB0", 64, 3, 3),
    "efficientdet_d1": Scaling(640, "EfficientNetB1", 88, 4, 3),
    "efficientdet_d2": Scaling(768, "EfficientNetB2", 112, 5, 3),
    "efficientdet_d3": Scaling(896, "EfficientNetB3", 160, 6, 4),
    "efficientdet_d4": Scaling(1024, "EfficientNetB4", 224, 7, 4),
    "efficientdet_d5": Scaling(1280, "EfficientNetB5", 288, 7, 4),
    "efficientdet_d6": Scaling(1280, "EfficientNetB6", 384, 8, 5, weighted=False),
    "efficientdet_d7": Scaling(1536, "EfficientNetB6", 384, 8, 5, weighted=False),
}
