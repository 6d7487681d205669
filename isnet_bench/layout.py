"""Where everything below a folder of results lies. No other file spells such a path.

Names of experiments, rows and studies may be wildcards of the workflow, such as ``{experiment}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

INFO = "data.json"
"""What says what prepared data are; written last."""
MADE_OF = "made_of"
"""Its key for the digests of the files that they are made of."""
WEIGHTS, HISTORY, RECORD = "weights.safetensors", "history.csv", "run.json"
"""What a training writes."""
METRICS, PREDICTIONS, HEATMAPS = "metrics.json", "predictions.parquet", "heatmaps.npz"
"""What an evaluation writes."""
MEDIATION = "mediation.csv"


def arrays_file(folder: Path, split: str, name: str = "images") -> Path:
    """Return where a folder of prepared data has the images, or the masks, of a split."""
    return folder / f"{split}.{name}.npy"


@dataclass(frozen=True)
class Layout:
    """The folders and files of one root of results."""

    root: Path | str

    def data(self, experiment: str) -> Path:
        """Folder of an experiment's prepared images."""
        return Path(self.root, "data", experiment)

    def run(self, experiment: str, row: str, seed: int | str) -> Path:
        """Folder of a run."""
        return Path(self.root, experiment, row, f"seed{seed}")

    def range_classifier(self, experiment: str, seed: int | str) -> Path:
        """Folder of the run of the classifier whose heatmaps have the natural range."""
        return self.run(experiment, "range/classifier", seed)

    def range(self, experiment: str, range_id: str, seed: int | str) -> Path:
        """File of a measured relevance range."""
        return self.run(experiment, f"range/{range_id}", f"{seed}.json")

    def segment(self) -> Path:
        """Folder of the lung segmentation."""
        return Path(self.root, "segment")

    def masks(self) -> Path:
        """Folder of the masks that it predicts."""
        return self.segment() / "masks"

    def timing(self, suffix: str) -> Path:
        """Measurements of a timing case, whose files have a suffix."""
        return Path(self.root, "timing", f"training_step{suffix}.json")

    def collected(self, name: str) -> Path:
        """Folder of what the tables and figures of an experiment or a study are made of."""
        return Path(self.root, "collected", name)

    def table(self, name: str, kind: str = "") -> Path:
        """A table; a path without suffix where the kind is empty."""
        return Path(self.root, "tables", f"{name}.{kind}" if kind else name)

    def figure(self, name: str, kind: str = "") -> Path:
        """A figure; a path without suffix where the kind is empty."""
        return Path(self.root, "figures", f"{name}.{kind}" if kind else name)

    def log(self, *parts: str) -> Path:
        """A job's log."""
        return Path(self.root, "logs", *parts).with_suffix(".log")

    def benchmark(self, *parts: str) -> Path:
        """Time and memory of a job, as Snakemake records them."""
        return Path(self.root, "benchmarks", *parts).with_suffix(".tsv")

    def published(self) -> Path:
        """Folder of the snapshots that are published."""
        return Path(self.root, "published")
