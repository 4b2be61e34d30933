"""Annotated: the data sets with boxes as a spec names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from tfqat import data as datasets
from tfqat.data import image_files
from tfqat.data.detection import coco, tfrecord, voc
from tfqat.data.detection.example import write_class_map
from tfqat.errors import TfqatError
from tfqat.spec.datasets import Dataset

DATASET = TypeAdapter(Dataset)


@pytest.fixture
def sections(voc_folder, write_coco, coco_content, tmp_path):
    """Makes the spec's section of a kind; all three are of the same scenes. Keywords replace keys."""
    (voc_folder / "ImageSets/Main/val.txt").write_text("a\nb\n")
    file, images = write_coco(coco_content)
    few = {"images": coco_content["images"][:2], "categories": coco_content["categories"]}
    few["annotations"] = [entry for entry in coco_content["annotations"] if entry["image_id"] != 102]
    val = file.with_name("val.json")
    val.write_text(json.dumps(few))
    for name, reading in (("train", voc.read(voc_folder, "train")), ("val", voc.read(voc_folder, "val"))):
        with tf.io.TFRecordWriter(str(tmp_path / f"{name}.tfrecord")) as writer:
            for one in reading.examples:
                writer.write(tfrecord.record(one.image.read(), "jpeg", one, reading.class_map))
        write_class_map(tmp_path / "classes.json", reading.class_map)
    paths = {
        "voc": {"path": str(voc_folder)},
        "coco": {
            "train_annotations": str(file),
            "train_images": str(images),
            "val_annotations": str(val),
            "val_images": str(images),
        },
        "tfrecord": {"train_files": str(tmp_path / "train.tfrecord"), "val_files": str(tmp_path / "v*.tfrecord")},
    }

    def make(kind, **keys):
        usual = {"kind": kind, "image_size": [128, 256], "batch_size": 2}
        return DATASET.validate_python(usual | paths[kind] | keys)

    return make


KINDS = ("voc", "coco", "tfrecord")


@pytest.fixture(params=KINDS)
def section(request, sections):
    return sections(request.param)


def gathered(dataset):
    parts = [(image.numpy(), {name: value.numpy() for name, value in wanted.items()}) for image, wanted in dataset]
    images = np.concatenate([image for image, _ in parts])
    return images, {name: np.concatenate([wanted[name] for _, wanted in parts]) for name in parts[0][1]}


def test_each_kind_gives_the_scenes(section, scenes):
    data = datasets.load(section, 0, 2)
    # COCO's classes are in the order of their numbers.
    names = ("dog", "cat") if section.kind == "coco" else ("cat", "dog")
    assert data.class_names == names
    assert (data.num_classes, data.input_shape, data.steps) == (2, (128, 256, 3), 1)
    images, targets = gathered(data.validation)
    assert images.shape == (2, 128, 256, 3)
    for row, (size, objects) in enumerate(list(scenes.values())[:2]):
        assert targets["size"][row].tolist() == list(size)
        there = targets["classes"][row] >= 0
        assert [names[label] for label in targets["classes"][row][there]] == [name for name, _ in objects]
        own = targets["boxes"][row][there] / np.tile(targets["scale"][row], 2)
        np.testing.assert_allclose(own, [box for _, box in objects], atol=1e-3)
        areas = [7.5] * len(objects) if section.kind == "coco" else [(b[2] - b[0]) * (b[3] - b[1]) for _, b in objects]
        np.testing.assert_allclose(targets["areas"][row][there], areas, rtol=1e-5)
        assert not targets["areas"][row][~there].any()


def test_another_number_of_classes(section):
    with pytest.raises(TfqatError, match=r"have 2 classes \(.*\), but the model has 3\. Set model_config\.num_classes"):
        datasets.load(section, 0, 3)


def test_classes_that_are_chosen(sections):
    for kind in ("voc", "coco"):
        chosen = sections(kind, classes=["dog"])
        assert datasets.load(chosen, 0, 1).class_names == datasets.class_names(chosen) == ("dog",)
    with pytest.raises(TfqatError, match="no category owl; it has "):
        datasets.load(sections("coco", classes=["owl"]), 0)
    with pytest.raises(ValidationError):
        sections("tfrecord", classes=["dog"])


def test_what_is_wrong_is_told_and_refused_where_strict(sections, write_xml, capsys):
    datasets.load(sections("voc"), 0)
    assert capsys.readouterr().out == ""
    write_xml("a", (48, 64), [("dog", (4, 8, 20, 90)), ("cat", (5, 5, 5, 9))])
    datasets.load(sections("voc", val_split="train"), 0)
    told = capsys.readouterr().out
    assert told.count("1 box that reaches outside its image: clipped") == 2  # in both splits
    assert "1 box of no area: dropped" in told
    kept = datasets.load(sections("voc", degenerate="keep", outside="drop"), 0)
    told = capsys.readouterr().out
    assert "1 box of no area: kept" in told
    assert "outside its image: dropped" in told
    _, targets = gathered(kept.validation)
    assert [kept.class_names[label] for label in targets["classes"][0] if label >= 0] == ["cat"]
    with pytest.raises(TfqatError, match="strict reading found 2 problems"):
        datasets.load(sections("voc", strict=True), 0)


@pytest.mark.parametrize("choice", ["keep", "drop"])
def test_crowds(sections, write_coco, coco_content, choice):
    coco_content["annotations"][0]["iscrowd"] = 1
    section = sections("coco", crowd=choice)
    write_coco(coco_content)
    _, targets = gathered(datasets.load(section, 0).calibration)
    assert targets["crowd"].sum() == (choice == "keep")
    assert (targets["classes"] >= 0).sum() == 2 + (choice == "keep")


@pytest.mark.parametrize("size", [100, [128, 192]])
def test_a_size_without_whole_cells(sections, size):
    with pytest.raises(ValidationError, match="multiples of 128"):
        sections("voc", image_size=size)


def test_augmentation_is_what_the_section_says(sections):
    plain = datasets.load(sections("voc", val_split="train"), 0)
    ((images, _),) = plain.train(0)
    whole = {tuple(image.numpy().ravel()[:9]) for image, _ in plain.validation.unbatch()}
    assert {tuple(image.numpy().ravel()[:9]) for image in images} <= whole
    flipped = datasets.load(sections("voc", augment={"flip": True, "color": 0.5}), 0)
    ((others, _),) = flipped.train(0)
    assert (others.numpy() != images.numpy()).any()


def test_class_names_and_shape_without_a_look_at_the_images(section, monkeypatch):
    def refuse(*_):
        pytest.fail("an image was decoded")

    for module in (coco, voc, tfrecord):
        monkeypatch.setattr(module, "cleaned", refuse)
    assert set(datasets.class_names(section)) == {"cat", "dog"}
    assert datasets.input_shape(section) == (128, 256, 3)
    monkeypatch.undo()
    assert datasets.class_names(section) == datasets.load(section, 0).class_names


def test_what_is_held_out_without_a_look_at_the_training_images(section, voc_folder, tmp_path, capsys):
    data = datasets.load(section, 0)
    if section.kind == "tfrecord":
        (tmp_path / "train.tfrecord").unlink()
    else:
        folder = voc_folder / "JPEGImages" if section.kind == "voc" else Path(section.train_images)
        (folder / "c.jpg").unlink()  # the image that is not in the validation split
    found = datasets.held_out(section, 0, 2)
    assert capsys.readouterr().out == ""  # nothing is amiss in the validation split
    assert (found.num_classes, found.input_shape, found.class_names) == (2, (128, 256, 3), data.class_names)
    (images, targets), (wanted, expected) = gathered(found.validation), gathered(data.validation)
    np.testing.assert_array_equal(images, wanted)
    for name, value in expected.items():
        np.testing.assert_array_equal(targets[name], value, err_msg=name)


def test_what_is_held_out_and_cannot_be_measured(sections, voc_folder, write_xml, coco_content):
    with pytest.raises(TfqatError, match=r"have 2 classes \(.*\), but the model has 3"):
        datasets.held_out(sections("voc"), 0, 3)
    (voc_folder / "ImageSets/Main/bare.txt").write_text("c\n")
    with pytest.raises(TfqatError, match="the validation split has 1 images and no box of an object"):
        datasets.held_out(sections("voc", val_split="bare"), 0)
    (voc_folder / "ImageSets/Main/none.txt").write_text("")
    with pytest.raises(TfqatError, match="The validation split has no image that can be used"):
        datasets.held_out(sections("voc", val_split="none"), 0)
    write_xml("a", (48, 64), [("dog", (4, 8, 20, 90))])
    with pytest.raises(TfqatError, match="strict reading found 1 problem"):
        datasets.held_out(sections("voc", strict=True), 0)
    section = sections("coco")
    content = json.loads(Path(section.val_annotations).read_text())
    content["categories"][0]["name"] = "horse"
    Path(section.val_annotations).write_text(json.dumps(content))
    for ask in (datasets.load, datasets.held_out):
        with pytest.raises(TfqatError, match=r"one class map; training has dog, cat, validation .*horse"):
            ask(section, 0)


def test_an_image_file_becomes_what_validation_has_bit_for_bit(sections, voc_folder, scenes):
    for preprocessing in ("torch", "none"):
        section = sections("voc", preprocessing=preprocessing)
        images, targets = gathered(datasets.load(section, 0).validation)
        prepare = datasets.preparer(section)
        for row, name in enumerate(list(scenes)[:2]):
            one = image_files.read(voc_folder / "JPEGImages" / name, prepare)
            np.testing.assert_array_equal(one.image, images[row])
            assert one.size == tuple(targets["size"][row])
            assert one.scale == tuple(float(number) for number in targets["scale"][row])


def test_a_folder_without_an_object(sections, voc_folder):
    section = sections("voc")
    for file in (voc_folder / "Annotations").iterdir():
        file.unlink()
    with pytest.raises(TfqatError, match=r"annotations have no object.*dataset_config\.classes"):
        datasets.class_names(section)
    with pytest.raises(TfqatError, match=r"annotations have no object.*dataset_config\.classes"):
        datasets.load(section, 0)


def test_records_without_a_class_map(sections, tmp_path):
    section = sections("tfrecord")
    (tmp_path / "classes.json").unlink()
    for ask in (datasets.class_names, lambda section: datasets.load(section, 0)):
        with pytest.raises(TfqatError, match=r"no class map at .*classes\.json"):
            ask(section)


def test_a_gray_image_is_prepared_as_rgb(sections, tmp_path):
    Image.new("L", (64, 64), 90).save(tmp_path / "gray.png")
    one = image_files.read(tmp_path / "gray.png", datasets.preparer(sections("voc")))
    assert one.image.shape == (128, 256, 3)
    np.testing.assert_array_equal(one.image[:, :128], 90)
    assert not np.asarray(one.image[:, 128:]).any()


def test_splits_in_which_nothing_is_to_be_found(sections, voc_folder, write_coco, coco_content):
    """Said before hours of training, and not where something is first measured."""
    (voc_folder / "ImageSets/Main/bare.txt").write_text("c\n")
    with pytest.raises(TfqatError, match="the validation split has 1 images and no box of an object"):
        datasets.load(sections("voc", val_split="bare"), 0)
    with pytest.raises(TfqatError, match="the training split has 1 images and no box of an object"):
        datasets.load(sections("voc", train_split="bare"), 0)
    with pytest.raises(TfqatError, match=r"strict reading found 1 problem:\n  1 split without a box"):
        datasets.load(sections("voc", val_split="bare", strict=True), 0)
    for change in ({"bbox": []}, {"iscrowd": 1}):
        entries = [entry | change for entry in coco_content["annotations"]]
        write_coco(coco_content | {"annotations": entries})
        with pytest.raises(TfqatError, match=r"(?s)the training split has 3 images and no box of an object.*"):
            datasets.load(sections("coco"), 0)


def test_the_numbers_of_classes_may_differ_between_the_files_of_a_data_set(sections, coco_content):
    section = sections("coco", classes=["cat", "dog"])
    file = Path(section.val_annotations)
    content = json.loads(file.read_text())
    others = {17: 1, 3: 2}
    for entry in content["annotations"]:
        entry["category_id"] = others[entry["category_id"]]
    for entry in content["categories"]:
        entry["id"] = others[entry["id"]]
    before = gathered(datasets.load(section, 0).validation)[1]["classes"]
    file.write_text(json.dumps(content))
    np.testing.assert_array_equal(gathered(datasets.load(section, 0).validation)[1]["classes"], before)
