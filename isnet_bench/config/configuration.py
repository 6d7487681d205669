"""The configuration of the benchmark: read once, checked as a whole, and asked for its parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from isnet_bench.config import catalog, grids
from isnet_bench.config.models import Experiment, Overview, Row, Study
from isnet_bench.config.segment import Segment
from isnet_bench.config.timing import MAIN, Timing, TimingCase
from isnet_bench.config.values import Model, Name, Seeds, Text
from isnet_bench.io.errors import pick
from isnet_bench.layout import MADE_OF

CLASSIFIER = "range_classifier"
"""Id of the row that is trained to measure relevance ranges."""
PLAIN = "resnet"
"""The method that it trains: the backbone as it is."""
_CLASSIFIER_EPOCHS = 4
_LOOKS = ("label", "color", "marker")

_RUN = (("device", "results", "plugins"), ("data", "backbone", "training", "methods"))
_REPORT = (("seeds", "results", "plugins"), tuple(Experiment.model_fields))
# verb -> the keys that its jobs depend on: of the configuration, and of the experiment
_NEEDED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prepare": (("results", "plugins"), ("data",)),
    "segment": (("device", "results", "segment"), ()),
    "range_classifier": _RUN,
    "range": _RUN,
    "train": _RUN,
    "evaluate": _RUN,
    "report": _REPORT,
    "time": (("device", "results", "plugins"), ()),
}


def _plain(folder: str) -> str:
    if folder.startswith("~") or any(sign.isspace() for sign in folder):
        raise ValueError(f"{folder!r} must be a path without spaces that does not begin with ~, which is not expanded")
    return folder


Folder = Annotated[Text, AfterValidator(_plain)]


class Config(Model):
    """A whole configuration, or as JSON text the part of one that a job depends on."""

    seeds: Seeds | None = Field(None, description="Seeds of the runs; one run for each experiment, row and seed.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")
    results: Folder = Field("results", description="Root folder of all outputs.")
    plugins: tuple[Text, ...] = Field((), description="Python files with methods and data sets of your own.")
    experiments: dict[Name, Experiment] = Field({}, description="Targets of their own, and part of `all`.")
    studies: dict[Name, Study] = Field({}, description="Targets of their own, not part of `all`: docs/studies.md.")
    overviews: dict[Name, Overview] = Field({}, description="Targets of their own, not part of `all`.")
    segment: Segment | None = None
    timing: Timing | None = None

    def experiment(self, name: str) -> Experiment:
        """Return an experiment of the configuration, or one that a study is expanded into. Raises what `row` does."""
        return self.experiments.get(name) or pick("experiment", name, {**self.experiments, **self._expanded})

    @property
    def segments(self) -> bool:
        """Whether lungs are segmented: `segment` is there, and there are X-rays, or there must be."""
        return self.segment is not None and not (self.segment.optional and self.segment.absent)

    def row(self, experiment: str, row: str) -> Row:
        """Return a row of an experiment. Raises BenchError if there is none; those that there are are listed."""
        return pick(f"method of experiment {experiment}", row, self.experiment(experiment).rows)

    def study(self, name: str) -> Study:
        """Return a study. Raises BenchError if there is none; those that there are are listed."""
        return pick("study", name, self.studies)

    def overview(self, name: str) -> Overview:
        """Return an overview. Raises BenchError if there is none; those that there are are listed."""
        return pick("overview", name, self.overviews)

    def experiment_seeds(self, name: str) -> tuple[int, ...]:
        """Return the seeds of an experiment: its own, or those of the configuration."""
        return self.experiment(name).seeds or self.seeds or ()

    def study_seeds(self, name: str) -> tuple[int, ...]:
        """Return the seeds of a study: its own, or those of its experiment."""
        study = self.study(name)
        return study.seeds or self.experiment_seeds(study.experiment)

    def study_rows(self, name: str) -> dict[str, Row]:
        """Return the rows that take part in a study; none where it chooses among candidates."""
        study = self.study(name)
        base = self.experiment(study.experiment)
        if isinstance(study.rows, Mapping):
            return base.model_copy(update={"methods": study.rows}).rows
        return {row: base.rows[row] for row in study.rows}

    def cells(self, study: str) -> tuple[grids.Cell, ...]:
        """Return all rows of all experiments of a study."""
        return grids.cells(study, self.study(study))

    def axes(self, study: str) -> tuple[grids.Axis, ...]:
        """Return the settings that a study varies."""
        return grids.axes(self.study(study))

    def study_experiments(self, study: str) -> list[str]:
        """Return the experiments that a study is expanded into."""
        return list(dict.fromkeys(cell.experiment for cell in self.cells(study)))

    @property
    def cases(self) -> dict[str, TimingCase]:
        """The timing cases by name, the main one first."""
        return {name: self.timing.case(name) for name in (MAIN, *self.timing.cases)} if self.timing else {}

    def case(self, name: str) -> TimingCase:
        """Return a timing case. Raises BenchError if there is none; those that there are are listed."""
        return pick("timing case", name, self.cases)

    @cached_property
    def catalog(self) -> catalog.Catalog:
        """What is known of methods and data sets, plug-ins included."""
        return catalog.read(self.plugins)

    def source(self, experiment: str, row: str) -> str:
        """Return the digest of the code of the method that a row trains."""
        return self.catalog.methods[self.row(experiment, row).method].code

    def files(self, experiment: str) -> str:
        """Return the digest of the files that an experiment's data are made of."""
        asked = self.experiment(experiment).data
        return self.catalog.data[asked.name].files(asked.settings)

    def planned_files(self, experiment: str, info: Path) -> str:
        """Return the same as it was before the data were made of which `info` tells, if they are made of these files.

        It is another one, since preparing data may download some.
        """
        found = self.files(experiment)
        try:
            made_of = json.loads(info.read_text(encoding="utf-8"))[MADE_OF]
        except (OSError, ValueError, LookupError):
            return found
        return made_of["planned"] if made_of.get("files") == found else found

    def range_id(self, experiment: str, row: str) -> str | None:
        """Return the id of the relevance range (C1, C2) that a row is trained with; None where it needs none.

        It is the range of an ordinary classifier's heatmaps. Rows whose heatmaps explain the same share it.
        """
        found = self.row(experiment, row)
        return self.catalog.methods[found.method].range_id(found.params)

    def part(
        self,
        verb: str,
        experiment: str | None = None,
        row: str | None = None,
        study: str | None = None,
        case: str | None = None,
        overview: str | None = None,
    ) -> str:
        """Return the part of the configuration that a job depends on, as JSON text that `load` reads.

        Parameters
        ----------
        verb : str
            The kind of job: "prepare", "segment", "range_classifier", "range", "train", "evaluate", "report" (tables
            and figures, and what they are made of) or "time".
        experiment, row, study, case, overview : str, optional
            What the job is about. For "range" the part holds instead of the row one that is named `range_id` and
            explains the same; for "range_classifier" it holds the plain network, trained for a short time.
            Raises BenchError if there is none of that name.
        """
        top, inner = _NEEDED[verb]
        part = {key: value for key, value in self.given().items() if key in top}
        if overview is not None:
            names = set(self.overview(overview).of.values())
            whole = self.given()
            based = {self.studies[name].experiment for name in names & set(self.studies)}
            part["experiments"] = {key: one for key, one in whole["experiments"].items() if key in names | based}
            part["studies"] = {key: one for key, one in whole.get("studies", {}).items() if key in names}
            part["overviews"] = {overview: whole["overviews"][overview]}
        elif study is not None:
            part.pop("seeds", None)
            part |= self._study_part(study)
        elif case is not None:
            complete = self.case(case).given("name")
            part["timing"] = complete if case == MAIN else {**complete, "cases": {case: {}}}
        elif experiment is not None:
            section = {key: value for key, value in self.experiment(experiment).given().items() if key in inner}
            if verb == "prepare":
                section["data"].pop("masks", None)
            if row is not None or verb == "range_classifier":
                section["methods"] = dict([self._row_part(verb, experiment, row)])
            part["experiments"] = {experiment: section}
        return json.dumps(part, separators=(",", ":"))

    def _study_part(self, name: str) -> dict[str, Any]:
        study = self.study(name)
        base = self.experiment(study.experiment).given("gallery", "gallery_set", "title", "seeds")
        named = () if isinstance(study.rows, Mapping) else study.rows
        base["methods"] = {row: base["methods"][row] for row in named}
        section = {**study.given(), "seeds": self.study_seeds(name)}
        return {"studies": {name: section}, "experiments": {study.experiment: base}}

    def _row_part(self, verb: str, experiment: str, row: str | None) -> tuple[str, dict[str, Any]]:
        """Return a row's id and what it is trained with."""
        if row is None:
            training = self.experiment(experiment).training
            epochs = min(_CLASSIFIER_EPOCHS, training.epochs) if training else _CLASSIFIER_EPOCHS
            return CLASSIFIER, {"method": PLAIN, "training": {"epochs": epochs}}
        found = self.row(experiment, row)
        if verb == "range":
            fields = self.catalog.methods[found.method].fields
            params = {key: value for key, value in found.params.items() if key in fields}
            return str(self.range_id(experiment, row)), {"method": found.method, "params": params}
        return row, self.experiment(experiment).methods[row].given(*_LOOKS)

    @cached_property
    def _expanded(self) -> dict[str, Experiment]:
        """The experiments that studies are expanded into."""
        return {
            name: Experiment.model_validate_json(json.dumps(made), strict=True)
            for study, section in self.studies.items()
            for name, made in grids.expand(study, section, self.experiments).items()
        }
