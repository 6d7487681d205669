"""The figures of training steps from made-up pytest-benchmark files."""

import json

import numpy as np
import pytest

from isnet_bench import config as configuration
from isnet_bench.config import catalog
from isnet_bench.io.errors import BenchError
from isnet_bench.reporting import style, timing_reports

CLASSES = (2, 10, 50)
CARDS = catalog.read().methods
ISNETS = ("resnet", "original_isnet", "stochastic_isnet")


def _milliseconds(method, classes):
    return {"stochastic_isnet": 22, "original_isnet": 10 * (classes + 1)}.get(method, 10)


def _entries(rows, classes=CLASSES, **more):
    for sweep, factors in enumerate([(1.0, 0.9, 1.1), (1.0, 7.0)]):
        for row in rows:
            for count in classes:
                info = {
                    "measures": "training step", "method": row, "label": CARDS[row].label, "classes": count,
                    "sweep": sweep, "backbone": "resnet_small", "batch_size": 16, "image_size": 28, "device": "cpu",
                    "threads": 2, "peak_memory_bytes": 3e6 * _milliseconds(row, count), **more,
                }  # fmt: skip
                data = [factor * _milliseconds(row, count) / 1000 for factor in factors]
                yield {"name": "test_training_step", "extra_info": info, "stats": {"data": data}}


@pytest.fixture
def measured(tmp_path):
    """Function that writes a timing file."""

    def write(entries, refused=()):
        path = tmp_path / "training_step.json"
        path.write_text(json.dumps({"benchmarks": list(entries), "refused": list(refused)}), encoding="utf-8")
        return path

    return write


@pytest.fixture
def drawn(monkeypatch):
    figs = []
    monkeypatch.setattr(style, "save", lambda fig, prefix: figs.append(fig))
    return figs


def _config(rows, **more):
    section = {
        "classes": list(CLASSES), "methods": list(rows), "backbone": {"name": "resnet_small"}, "image_size": 28,
        "batch_size": 16, "rounds": 5, **more,
    }  # fmt: skip
    return configuration.check({"seeds": [0], "experiments": {}, "timing": section}, "test")


def _draw(kind, cfg, path, out, case="main"):
    timing_reports.draw(kind, cfg, case, path, out)


def _lines(panel):
    return {line.get_label().split("\N{NO-BREAK SPACE}[")[0]: line for line in panel.lines}


def _legend(panel):
    return [" ".join(text.get_text().split()) for text in panel.get_legend().get_texts()]


def _texts(panel):
    return [text.get_text() for text in panel.texts]


def test_time_is_log_log_with_guides_and_slopes(measured, drawn, tmp_path):
    _draw("time", _config(ISNETS), measured(_entries(ISNETS)), tmp_path / "time")
    (panel,) = drawn[0].axes
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    lines = _lines(panel)
    np.testing.assert_allclose(lines["Original ISNet"].get_ydata(), [30, 110, 510])
    np.testing.assert_allclose(lines["Stochastic ISNet"].get_ydata(), 22)
    guides = [line.get_xydata() for line in panel.lines if line.get_color() == style.GREY]
    np.testing.assert_allclose(guides, [[[2, 30], [50, 30]], [[2, 30], [50, 750]]])
    whiskers = panel.collections[0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in whiskers], [[10, 11]] * 3)
    slope = np.polyfit(np.log(CLASSES), np.log([30, 110, 510]), 1)[0]
    assert _legend(panel) == [
        "Standard classifier [0.00]", f"Original ISNet [{slope:.2f}]", "Stochastic ISNet [0.00]",
    ]  # fmt: skip
    assert _texts(panel) == ["constant", "linear"]
    title = " ".join(drawn[0].get_suptitle().split())
    assert "Median and IQR of 5 rounds; resnet_small, batch of 16 random 28 × 28 images, CPU, 2 threads" in title


def test_a_line_that_ends_early_goes_on_dashed_and_says_so(measured, drawn, tmp_path):
    entries = [*_entries(["resnet", "stochastic_isnet"], (2, 10, 50, 1000)), *_entries(["original_isnet"])]
    _draw("time", _config(ISNETS), measured(entries), tmp_path / "time")
    (panel,) = drawn[0].axes
    color = "#D55E00"
    whole, dashed = (line for line in panel.lines if line.get_color() == color and len(line.get_xdata()) > 2)
    np.testing.assert_allclose(whole.get_xdata(), CLASSES)
    assert whole.get_linestyle() == "-"
    assert dashed.is_dashed()
    assert dashed.get_marker() == "None"
    np.testing.assert_allclose(dashed.get_xydata()[[0, -1]], [[50, 510], [1000, 10010]])
    assert _texts(panel).count("extrapolated") == 1
    assert len(panel.get_legend().get_texts()) == 3


def test_memory_has_the_same_form(measured, drawn, tmp_path):
    _draw("memory", _config(ISNETS), measured(_entries(ISNETS)), tmp_path / "memory")
    (panel,) = drawn[0].axes
    np.testing.assert_allclose(_lines(panel)["Original ISNet"].get_ydata(), [90, 330, 1530])
    assert not panel.collections
    assert panel.get_ylabel() == "Peak memory of one training step (MB)"
    assert "Median" not in drawn[0].get_suptitle()


def test_baselines_have_a_panel_of_their_own_with_the_plain_network(measured, drawn, tmp_path):
    rows = ("resnet", "stochastic_isnet", "gain", "rrr")
    _draw("time", _config(rows), measured(_entries(rows)), tmp_path / "time")
    named = [[text.removesuffix(" [0.00]") for text in _legend(panel)] for panel in drawn[0].axes]
    gain, rrr = CARDS["gain"].label, CARDS["rrr"].label
    assert named == [["Standard classifier", "Stochastic ISNet"], ["Standard classifier", gain, rrr]]
    linear = [line for line in drawn[0].axes[1].lines if line.get_color() == style.GREY][1].get_xydata()
    # It leaves the panel instead of stretching it.
    np.testing.assert_allclose(linear[1, 1] / linear[0, 1], linear[1, 0] / linear[0, 0])
    assert linear[1, 0] < 10


def test_figure_misses_no_configured_method_unless_it_was_too_slow_from_the_start(measured, tmp_path, drawn, caplog):
    config = _config(["resnet", "dual_isnet"])
    with pytest.raises(BenchError, match="holds no step of dual_isnet; make it with"):
        _draw("time", config, measured(_entries(["resnet"])), tmp_path / "time")
    refused = {"measures": "training step", "method": "dual_isnet", "classes": 2, "reason": "it takes 9 s"}
    _draw("time", config, measured(_entries(["resnet"]), [refused]), tmp_path / "time")
    assert "dual_isnet is not in the figure" in caplog.text
    with pytest.raises(BenchError, match="holds no peak memory of a step of resnet"):
        _draw("memory", config, measured(_entries(["resnet"], peak_memory_bytes=None)), tmp_path / "memory")


def test_a_case_has_its_own_rows(measured, drawn, tmp_path):
    config = _config(ISNETS, cases={"few": {"methods": ["resnet"]}})
    _draw("time", config, measured(_entries(["resnet"])), tmp_path / "time", "few")
    assert len(drawn[0].axes[0].get_legend().get_texts()) == 1


def test_files_are_as_wide_as_a_column(measured, tmp_path):
    _draw("time", _config(ISNETS), measured(_entries(ISNETS)), tmp_path / "time")
    from PIL import Image

    with Image.open(tmp_path / "time.png") as image:
        assert abs(image.width / 300 * 25.4 - style.COLUMN_MM) < 0.2
    assert (tmp_path / "time.pdf").read_bytes().startswith(b"%PDF")


def test_with_one_number_of_classes_methods_stand_below_each_other(measured, drawn, tmp_path):
    path = measured(_entries(ISNETS, classes=(10,)))
    _draw("time", _config(ISNETS), path, tmp_path / "a")
    _draw("memory", _config(ISNETS), path, tmp_path / "a")
    (time,), (memory,) = (fig.axes for fig in drawn)
    assert [tick.get_text() for tick in time.get_yticklabels()] == [
        "Standard classifier", "Original ISNet", "Stochastic ISNet",
    ]  # fmt: skip
    assert [text.get_text() for text in time.texts] == ["10 (1.00 ×)", "110 (11.00 ×)", "22 (2.20 ×)"]
    assert [text.get_text() for text in memory.texts] == ["30 (1.00 ×)", "330 (11.00 ×)", "66 (2.20 ×)"]
    titles = [fig.get_suptitle().split("\n")[0] for fig in drawn]
    assert titles == ["Training time with 10 classes", "Peak memory of training with 10 classes"]
    assert all("in brackets: over plain" in " ".join(fig.get_suptitle().split()) for fig in drawn)
    _, _, (whisker,) = time.containers[1]
    assert len(whisker.get_segments()) == 1
