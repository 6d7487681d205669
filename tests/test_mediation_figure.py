"""What silenced units explain, from a table of mediations that the test writes itself."""

import numpy as np
import pandas as pd
import pytest
import reporting_runs
from reporting_runs import SETS

from isnet_bench.reporting import mediation, outputs

bench, drawn = reporting_runs.bench, reporting_runs.drawn
ROWS = ("resnet", "stochastic_isnet")
LAYERS = ("first", "second")


def _table(share):
    """Two changes, layers and kinds of unit; `share` is that of the last change and silenced units."""
    return pd.DataFrame(
        [
            {
                **{"change": change, "images": 3, "layer": layer, "shift": 0.1, "kind": kind, "units": 0.1},
                "restored": share if (change, kind) == ("mark added", "silenced") else 0.99,
            }
            for change in ("mark removed", "mark added")
            for layer in LAYERS
            for kind in ("silenced", "woken")
        ]
    )


@pytest.fixture
def study(bench):
    vary = [
        {
            "setting": "data.bias.pattern",
            "label": "Mark",
            "values": {"pixel": "border_pixel", "tint": "tinted_background"},
        }
    ]
    bench.raw["studies"] = {"marks": {"experiment": "mnist", "rows": list(ROWS), "seeds": [0, 1], "vary": vary}}
    for cell in bench.config.cells("marks"):
        for seed in range(2):
            folder = bench.run(cell.row, seed, cell.experiment)
            reporting_runs.write_run(folder, cell.row, seed, {name: reporting_runs._scores(0.5, 0.1) for name in SETS})
    return bench


def test_a_line_for_each_row_has_the_mean_share_of_each_layer(study, drawn):
    cells = [cell for cell in study.config.cells("marks") if cell.values[0].name == "tint"]
    for cell in cells:
        for seed, share in enumerate((0.2, 0.4)):
            share += 0.5 * (cell.source == "resnet")
            _table(share).to_csv(study.run(cell.row, seed, cell.experiment) / "mediation.csv", index=False)
    study.collect("marks")
    outputs.write_study(study.config, "marks", study.root)
    panels = [panel for panel in drawn[1].axes if panel.axison]
    assert [panel.get_title() for panel in panels] == ["tint"]
    lines = {line.get_label(): line.get_ydata() for line in panels[0].lines}
    np.testing.assert_allclose(lines[reporting_runs.LABELS["resnet"]], [80, 80])
    np.testing.assert_allclose(lines[reporting_runs.LABELS["stochastic_isnet"]], [30, 30])
    assert [tick.get_text() for tick in panels[0].get_xticklabels()] == list(LAYERS)
    assert "mark added" in drawn[1].get_suptitle()


def test_without_mediations_there_is_no_such_figure(study, drawn):
    assert mediation.restored(study.read("marks")).empty
    outputs.write_study(study.config, "marks", study.root)
    assert len(drawn) == 1
