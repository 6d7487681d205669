"""The measured training steps as a page: time and memory of each method at each number of classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from isnet_bench import timing
from isnet_bench.files import replacing
from isnet_bench.reporting import markup

__all__ = ["write"]

_SHOWN = {
    "median_seconds": ("Time of one training step (ms), median", 1000, "{:,.1f}"),
    "ratio_to_plain": ("Time as a multiple of the plain network's, in the same sweep", 1, "{:,.2f}"),
    "peak_memory_mb": ("Peak memory of one training step (MB)", 1, "{:,.1f}"),
}


def write(timing_json: Path, out: Path) -> None:
    """Write the page. Raises what `isnet_bench.timing.summary` raises.

    Parameters
    ----------
    timing_json : Path
        What `isnet_bench.timing.run` wrote.
    out : Path
        Path of the page.
    """
    steps = timing.summary(timing_json)
    steps = steps[steps["operation"] == timing.STEP]
    title = "Training steps against the number of classes"
    rounds = steps["rounds"].max()
    how = f"{title}: {timing.setting(timing_json)}, {rounds} round{'s' if rounds > 1 else ''}. Empty: not measured."
    with replacing(Path(out)) as part:
        text = markup.page(title, [markup.paragraph(how), *_parts(steps)])
        part.write_text(text, encoding="utf-8")


def _parts(steps: pd.DataFrame) -> Iterator[str]:
    for column, (title, unit, form) in _SHOWN.items():
        if steps[column].notna().any():
            table = steps.pivot(index="label", columns="classes", values=column).loc[steps["label"].unique()]
            shown = (unit * table).map(lambda value, form=form: "" if pd.isna(value) else form.format(value))
            shown.columns = [f"{classes} classes" for classes in shown.columns]
            shown.insert(0, "Method", shown.index)
            yield markup.paragraph(title, "h2")
            yield markup.html_table(shown)
