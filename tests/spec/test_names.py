"""Names: the lists that stand in for Keras are compared with Keras."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from tfqat.spec.names import (
    APPLICATION_OPTIONS,
    APPLICATIONS,
    BACKBONE_OPTIONS,
    CLASSIFIERS,
    DETECTOR_OPTIONS,
    DETECTORS,
    ZOO,
    near,
    options_of,
)
from tfqat.spec.schema import ModelOptions


def test_applications_are_those_of_keras():
    applications = pytest.importorskip("keras").applications
    assert sorted(APPLICATIONS) == sorted(name for name in dir(applications) if name[0].isupper())


@pytest.mark.parametrize("name", APPLICATIONS)
def test_options_are_the_arguments_of_the_function(name):
    applications = pytest.importorskip("keras").applications
    common = set(inspect.signature(applications.ResNet50).parameters)
    own = set(inspect.signature(getattr(applications, name)).parameters) - common
    assert set(options_of(name)) == own


def test_zoo_is_what_models_builds():
    zoo = pytest.importorskip("tfqat.models.zoo")
    scaling = pytest.importorskip("tfqat.models.efficientdet.scaling")
    assert set(zoo.OWN) == set(CLASSIFIERS)
    assert set(scaling.SCALINGS) == set(DETECTORS)
    assert set(ZOO) == {*zoo.OWN, *scaling.SCALINGS}


def test_each_option_has_a_key_in_the_schema():
    assert set(ModelOptions.model_fields) == {*APPLICATION_OPTIONS, *DETECTOR_OPTIONS}


def test_options_of_a_detector_are_the_arguments_of_its_function():
    model = pytest.importorskip("tfqat.models.efficientdet.model")
    scaling = pytest.importorskip("tfqat.models.efficientdet.scaling")
    given = {"name", "input_shape", "num_classes", "weights", "sizes", "backbone_options"}
    own = set(inspect.signature(model.efficientdet).parameters) - given
    sizes = {field.name for field in fields(scaling.Scaling)} & set(ModelOptions.model_fields)
    for name in DETECTORS:
        assert set(options_of(name)) == own | sizes | set(BACKBONE_OPTIONS)
    assert set(BACKBONE_OPTIONS) < set(APPLICATION_OPTIONS)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("mobilenet_v2", "MobileNetV2"),
        ("RESNET50", "ResNet50"),
        ("resnet_8", "resnet8"),
        ("efficientnetb0", "EfficientNetB0"),
        ("qqqq", None),
        ("", None),
    ],
)
def test_near(word, expected):
    assert near(word, (*ZOO, *APPLICATIONS)) == expected
