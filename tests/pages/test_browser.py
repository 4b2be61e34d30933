"""The pages in a real browser: nothing is loaded, nothing fails or is wider than the screen, all plots are drawn."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.analysis.files import write_analysis
from tfqat.training.results import Results
from tfqat.training.stages import Stage, add_stages
from tfqat.training.summary import write_summary

LONG = "a_layer_with_a_name_that_is_longer_than_any_column_of_a_table_ought_to_be"


def net() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = x = keras.Input((8, 8, 3), name="image")
    for name in ("one", "two", LONG):
        x = layers.ReLU(name=f"{name}_relu")(layers.Conv2D(6, 3, padding="same", name=name)(x))
    return keras.Model(image, layers.Dense(4, name="head")(layers.GlobalAveragePooling2D(name="pool")(x)))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Name -> file."""
    folder = tmp_path_factory.mktemp("pages")
    model, images = net(), np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
    kernel, bias = model.get_layer("head").get_weights()
    means = model.predict(images, verbose=0).mean(axis=0)
    model.get_layer("head").set_weights([kernel, bias - means])  # each class is somebody's
    labels = model.predict(images, verbose=0).argmax(-1)
    rules = [{"match": "*", "weight_bits": 2}]
    qat = tfqat.prepare(model, rules=rules)
    tfqat.calibrate(qat, images)
    front = tfqat.recommend(model, (images, labels), rules=rules, max_drop=40)
    assert len(front.points) > 1
    write_analysis(replace(tfqat.analyze(qat, (images, labels)), front=front), folder)
    results = Results(folder)
    qat.save(results.qat_model)
    rows = [f"float,{n},{2 / n},0.{n},{3 / n},0.{n},{0.1 / n}" for n in range(1, 8)] + ["qat,1,nan,0.7,0.5,0.8,0.01"]
    head = "phase,epoch,loss,accuracy,val_loss,val_accuracy,learning_rate"
    results.metrics.write_text("\n".join([head, *rows]) + "\n")
    results.spec.write_text("results_dir: " + "x" * 300 + "\n")
    add_stages(results.stages, [Stage("float", "Keras", 0.9, 10_000), Stage("Q/DQ ONNX", "onnxruntime", 0.89)])
    return {"report": folder / "report.html", "summary": write_summary(results)}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("name", ["report", "summary"])
def test_a_page(name, width, dark, pages, browser):
    browser.open(pages[name], width, dark)
    assert [request["request"]["url"] for request in browser.seen("Network.requestWillBeSent")] == [
        pages[name].resolve().as_uri()
    ]
    for trouble in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
        assert browser.seen(trouble) == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    drawn = browser.run("[...document.querySelectorAll('.plot')].map((p) => p.querySelectorAll('svg > *').length)")
    assert len(drawn) >= 3
    assert min(drawn) > 3
    # The numbers of a table are seen beside its first column, however long the names are.
    wide = browser.run("Math.max(...[...document.querySelectorAll('td:first-child')].map((c) => c.offsetWidth))")
    assert wide < 0.6 * width
    light = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(light) < 128) == dark


def point_at(browser, plot, share):
    """Moves the pointer over a plot and gives what is said below it."""
    box = browser.run(
        f"(() => {{ const p = document.getElementById('{plot}'); p.scrollIntoView(); "
        "const b = p.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
    )
    left, top, width, height = box
    where = {"x": left + share * width, "y": top + height / 2}
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **where)
    return browser.run(f"document.getElementById('{plot}-said').textContent")


def test_plots_answer_the_pointer(pages, browser):
    browser.open(pages["summary"], 1200, False)
    assert point_at(browser, "loss", 0.02).startswith("float, epoch 1: training 2, validation 3")
    assert point_at(browser, "loss", 0.98) == "qat, epoch 1: training no number, validation 0.5"
    browser.open(pages["report"], 1200, False)
    assert "100.0 % on integers; in float: nothing" in point_at(browser, "front", 0.99)
    assert "in float: nothing" not in point_at(browser, "front", 0.02)


def test_states_can_be_left_out(pages, browser):
    browser.open(pages["summary"], 1200, False)
    rows = "[...document.querySelectorAll('#ops tbody tr')]"
    shown = f"{rows}.filter((row) => row.offsetHeight).map((row) => row.cells[1].textContent)"
    before = browser.run(shown)
    browser.run("document.querySelector('#states input[value=int8]').click()")
    after = browser.run(shown)
    assert any(state.startswith("int8") for state in before)
    assert after == [state for state in before if not state.startswith("int8")]
    assert after
