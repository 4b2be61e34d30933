"""`tfqat dataset-convert` as a user meets it: in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from PIL import Image

from tfqat.data.detection import tfrecord

TFQAT = [sys.executable, "-c", "from tfqat.cli.main import main; main()", "dataset-convert"]
XML = (
    "<annotation><filename>a.jpg</filename><object><name>cat</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>33</xmax>"
    "<ymax>14</ymax></bndbox></object></annotation>"
)


def convert(*arguments, cwd):
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([*TFQAT, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.fixture
def folder(tmp_path):
    for part in ("voc/Annotations", "voc/ImageSets/Main", "voc/JPEGImages"):
        (tmp_path / part).mkdir(parents=True)
    Image.effect_noise((32, 24), 60).save(tmp_path / "voc/JPEGImages/a.jpg")
    (tmp_path / "voc/Annotations/a.xml").write_text(XML)
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("a\n")
    return tmp_path


# Options -> the boxes that are written; the one there is reaches one pixel over the right edge.
OPTIONS = {"usual": ([], [[4, 3, 14, 32]]), "drop": (["--outside", "drop"], []), "no class": (["--class", "dog"], [])}


@pytest.mark.parametrize(("options", "boxes"), OPTIONS.values(), ids=OPTIONS)
def test_voc(folder, options, boxes):
    done = convert("--voc", "voc", "--split", "train", "-o", "out", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "a.jpg" in done.stdout or "a: object 1, 'cat'" in done.stdout
    assert "Writing records" in done.stderr
    assert tfrecord.read(folder / "out" / "train-*").examples[0].boxes.tolist() == boxes


WRONG = {
    "nothing": (["-o", "out"], 2, "name one data set"),
    "both": (["--voc", "voc", "--coco", "x.json", "-o", "out"], 2, "name one data set"),
    "no split": (["--voc", "voc", "-o", "out"], 2, "--voc needs --split"),
    "no images": (["--coco", "x.json", "-o", "out"], 2, "--coco needs --images"),
    "split of coco": (["--coco", "x", "--images", "voc", "--split", "a", "-o", "out"], 2, "goes with --voc only"),
    "output a file": (["--voc", "voc", "--split", "train", "-o", "voc/Annotations/a.xml"], 2, "expected a folder"),
    "no such split": (["--voc", "voc", "--split", "val", "-o", "out"], 1, "Splits there: train"),
    "strict": (
        ["--voc", "voc", "--split", "train", "-o", "out", "--strict"],
        1,
        "1 box that reaches outside its image",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_one_message_and_no_file(folder, arguments, code, says):
    found = convert(*arguments, cwd=folder)
    assert (found.returncode, "Traceback" in found.stderr) == (code, False)
    assert says in found.stderr
    assert not (folder / "out").exists()
