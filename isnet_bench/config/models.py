"""What a configuration may hold: each key, its bounds and its default stand here once.

The models are frozen and strict; unknown keys are errors. The JSON Schema of the configuration is generated from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    model_validator,
)

from isnet_bench.config.values import (
    Count,
    Identifier,
    Model,
    Number,
    Positive,
    Score,
    Seeds,
    Setting,
    Share,
    Text,
    changes_of,
    not_in,
    once,
    or_empty,
)
from isnet_bench.io.errors import listed

WORST_GROUP = "val_worst_group_error"
"""Column of the history: 1 minus the accuracy of the worst group of validation images, where these have groups."""

_SET_BY_DATA = frozenset(
    {"name", "classes", "num_classes", "channels", "in_chans", "image_size", "shown", "normalization"}
)


def _left_open(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options of an architecture that are set already."""
    for name in _SET_BY_DATA.intersection(options):
        raise ValueError(f"{name!r} is set by the data; leave it out")
    return options


def _mapped(given: Any) -> Any:
    """Return names as a mapping to nothing."""
    named = isinstance(given, list) and all(isinstance(name, str) for name in given)
    return {name: {} for name in once(given)} if named else given


class MaskSubset(Model):
    """Which training images keep their masks; each seed has another subset."""

    number: Number
    choose: Literal["random", "per_class", "one_class"] = Field(
        "random",
        description="per_class: as evenly over the classes as can be; one_class: all are of the lowest label.",
    )


Subset = Annotated[
    MaskSubset | None,
    BeforeValidator(
        lambda given: given if given is None or isinstance(given, Mapping) else {"number": given},
        json_schema_input_type=Number | MaskSubset | None,
    ),
]


class Data(Model):
    """A data set, and its own settings beside those that all have, which it checks itself."""

    model_config = ConfigDict(extra="allow")

    name: Identifier = Field(description="A data set: built in, of an installed package, or of a plug-in.")
    masks: Subset = Field(
        None,
        description="Training images that keep their masks: how many, or which share; null: all. They are drawn from "
        "the run's seed; validation images keep the same share. The prepared data do not change.",
    )

    @property
    def settings(self) -> dict[str, Any]:
        """What the data set itself is made with."""
        return dict(self.model_extra or {})


class Normalization(Model):
    """Channels as the network sees them: ``(pixel - mean) / std``, one number for each channel, pixels in [0, 1]."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: Annotated[tuple[Positive, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_channel_each(self) -> Normalization:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} numbers and std {len(self.std)}; give one for each channel")
        return self


class Backbone(Model):
    """The classifier that methods train."""

    name: Text = Field(description="resnet_small, or a model of timm or torchvision.")
    channels: Count | None = Field(
        None,
        description="Of the network's input; a grey image is shown as so many equal ones. null: the images' own.",
    )
    normalization: Normalization | None = Field(
        None,
        description="Inside the network, so that z^B's bounds follow it; LRP-Block refuses it. null: the "
        "network sees pixels in [0, 1].",
    )
    options: Annotated[dict[str, Any], AfterValidator(_left_open)] = Field(
        {},
        description="Passed on to the architecture; drop_rate of timm and resnet_small: dropout before the head.",
    )


class Augmentation(Model):
    """How training images are changed, each anew whenever it is shown; its mask moves with it."""

    flip: Share = Field(0.0, description="Probability that left and right change places.")
    shift: int = Field(0, ge=0, description="Most pixels that it moves by in each direction; its edge is mirrored.")
    color: Share = Field(
        0.0, description="Largest relative change of brightness, contrast and, of photographs in colours, saturation."
    )


class Training(Model):
    """Trainer settings, shared by all methods of an experiment."""

    epochs: Count
    batch_size: Count = Field(
        description="A last batch that would be smaller is left out; its images differ from epoch to epoch."
    )
    masked_images: Count | None = Field(
        None,
        description="Images that are added to each batch, drawn among the training images with a mask; null: none.",
    )
    augmentation: Augmentation | None = Field(
        None, description="Of training images, for every method; null: none. Marks move with the images, too."
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd: with momentum.")
    learning_rate: Positive = Field(description="The highest of the schedule.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd; a one_cycle schedule sets its own.")
    weight_decay: float = Field(1e-4, ge=0, description="Of adamw decoupled, of sgd added to the gradient.")
    gradient_clip: Positive | None = Field(
        1.0, description="Largest Euclidean norm of the gradient of all parameters together; null: not clipped."
    )
    schedule: Literal["one_cycle", "cosine", "constant"] = Field(
        "one_cycle", description="Course of the learning rate over the batches."
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="Of training; bf16: mixed, weights and losses stay float32. Evaluation is always in float32.",
    )
    val_batch_size: Count | None = Field(None, description="Images of a validation batch; null: batch_size.")
    epoch: Literal["classification", "total", "worst_group", "last"] = Field(
        "last",
        description="Epoch whose weights are kept: the last one, that of the lowest classification part of the "
        "validation loss, that of the method's lowest total, or that of the highest accuracy of the worst group of "
        "validation images, which must have groups.",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="Of the cross-entropy, for every method; balanced: inversely proportional to the class's number of "
        "training images, and 1 on average over those.",
    )

    @property
    def monitored(self) -> str | None:
        """Column of the history whose lowest value the kept epoch has; None: the last epoch is kept."""
        columns = {"classification": "val_classification", "total": "val_loss", "worst_group": WORST_GROUP}
        return columns.get(self.epoch)

    def kept(self, history: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
        """Return the row of the epoch whose weights are kept, of a history with a row for each epoch."""
        key = self.monitored
        return history[-1] if key is None else min(history, key=lambda row: row[key])

    @property
    def batch_in_order(self) -> int:
        """Images of a batch outside training."""
        return self.val_batch_size or self.batch_size


TrainingChanges = changes_of(Training, "TrainingChanges")


class Candidate(Model):
    """What a row sets beside the defaults of its method and of its experiment."""

    params: dict[str, Any] = Field({}, description="Hyper-parameters that differ from the method's own defaults.")
    training: TrainingChanges = Field(TrainingChanges(), description="Trainer settings of this row alone.")


class RowEntry(Candidate):
    """A row of the tables, as a configuration has it."""

    method: Identifier | None = Field(None, description="What is trained; the row's own name where absent.")
    label: Text | None = Field(None, description="Its name in tables and figures; the method's where absent.")
    color: Text | None = Field(None, description="Its colour in figures, as matplotlib names colours.")
    marker: Text | None = Field(None, description="Its marker in figures, as matplotlib names markers.")


class Row(Model):
    """A `RowEntry` with nothing left open: `id` is a folder of the results, `training` is complete.

    There is no `training` where nothing is trained (timing cases); `color` and `marker` are None for a look that
    depends on the name alone.
    """

    id: str
    method: str
    label: str
    params: dict[str, Any]
    training: Training | None = None
    color: str | None = None
    marker: str | None = None


def rows_of(entries: Mapping[str, RowEntry], training: Training | None) -> dict[str, Row]:
    """Return the rows that entries stand for, with nothing left open."""
    rows = {}
    for name, entry in entries.items():
        method = entry.method or name
        whole = training and Training.model_validate({**training.model_dump(), **entry.training.given()})
        resolved = {"id": name, "method": method, "label": entry.label or method, "training": whole}
        rows[name] = Row(**{**dict(entry), **resolved})
    return rows


def _labelled(entries: dict[str, RowEntry], info: ValidationInfo) -> dict[str, RowEntry]:
    """Give rows without a label that of their method, of the labels that the context of the validation has.

    Where another row has that label already, the row's own name is put behind it.
    """
    known = (info.context or {}).get("labels", {})
    labels = {row: entry.label or known.get(entry.method or row, row) for row, entry in entries.items()}
    times = Counter(labels.values())
    for row, entry in entries.items():
        if entry.method and not entry.label and times[labels[row]] > 1:
            labels[row] += f" ({row})"
    return {row: entry.model_copy(update={"label": labels[row]}) for row, entry in entries.items()}


RowId = Annotated[Identifier, not_in({"range"}, "it names another folder of the experiment")]
Change = Annotated[Candidate, BeforeValidator(or_empty, json_schema_input_type=Candidate | None)]
Entry = Annotated[RowEntry, BeforeValidator(or_empty, json_schema_input_type=RowEntry | None)]
Entries = Annotated[
    dict[RowId, Entry],
    BeforeValidator(_mapped, json_schema_input_type=dict[RowId, Entry] | list[RowId]),
    AfterValidator(_labelled),
]


class Experiment(Model):
    """Data, backbone, recipe, and the rows that are compared."""

    title: str | None = Field(None, description="Heading of its tables and figures; its name where absent.")
    data: Data
    backbone: Backbone | None = None
    training: Training | None = Field(None, description="Trainer settings shared by all methods.")
    methods: Entries = Field({}, description="Row of the tables -> what is trained in it.")
    seeds: Seeds | None = Field(None, description="Those of the configuration where absent.")
    score: Score = Field("accuracy", description="What tables for people and figures show; the csv has all scores.")
    gallery: tuple[str, ...] | None = Field(
        None, description="Rows of the figure of heatmaps; all where absent. Empty: there is no such figure."
    )
    gallery_set: str | None = Field(None, description="Test set whose images that figure shows; the first if absent.")

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if self.methods and (self.backbone is None or self.training is None):
            raise ValueError("with methods it also needs the keys backbone and training")
        unknown = sorted(set(self.gallery or ()) - set(self.methods)) if self.methods else []
        if unknown:
            raise ValueError(f"gallery: no row {', '.join(unknown)}; the rows are {listed(self.methods)}")
        return self

    @property
    def rows(self) -> dict[str, Row]:
        """The rows with nothing left open, in the configuration's order."""
        return rows_of(self.methods, self.training)


class Variation(Model):
    """A setting that takes several values."""

    setting: Setting = Field(description="data.… and backbone.… of an experiment, params.… and training.… of its rows.")
    label: Text | None = Field(None, description="What it is called in tables and figures; the setting where absent.")
    scale: Literal["linear", "log", "even"] = Field("linear", description="Of its axis; even: at equal distances.")
    values: Annotated[list[Any], Field(min_length=1)] | Annotated[dict[str, Any], Field(min_length=1)] = Field(
        union_mode="left_to_right", description="The values, or their names in tables and figures -> the values."
    )


class Study(Model):
    """An experiment over values of settings, or over candidates of which validation images choose one."""

    title: str | None = Field(None, description="Heading of its table and figure; its name where absent.")
    experiment: str = Field(description="Whose data, backbone and trainer settings it starts from.")
    rows: Annotated[
        Annotated[tuple[str, ...], Tag("names")] | Annotated[Entries, Tag("entries")],
        Discriminator(lambda given: "entries" if isinstance(given, Mapping) else "names"),
    ] = Field((), description="Rows of the experiment that take part, or rows of its own.")
    vary: tuple[Variation, ...] = Field((), description="Settings that take several values; all combinations are run.")
    candidates: dict[Identifier, Annotated[tuple[Change, ...], Field(min_length=1)]] | None = Field(
        None,
        description="Instead of rows and vary. Method -> candidates, from the strongest supervision to the weakest; "
        "one is chosen by iid validation accuracy alone.",
    )
    oracle: bool = Field(False, description="Whether candidates are tested too; shows what the last test set chooses.")
    changes: dict[str, Any] = Field({}, description="Setting -> a value that it has in all runs of the study.")
    seeds: Seeds | None = Field(None, description="Those of the experiment where absent.")
    seconds: bool = Field(False, description="Whether table and figure show the training time.")

    @model_validator(mode="after")
    def _one_kind(self) -> Study:
        if (self.candidates is None) == (not self.vary or not self.rows):
            raise ValueError("a study needs either the keys rows and vary, or the key candidates")
        if self.oracle and not self.select:
            raise ValueError("oracle needs the key candidates")
        for setting, times in Counter(variation.setting for variation in self.vary).items():
            if times > 1:
                raise ValueError(f"vary: {setting} is given twice; give all of its values in one place")
        return self

    @property
    def select(self) -> bool:
        """Whether it chooses among candidates, by validation images."""
        return self.candidates is not None

    @property
    def tested(self) -> bool:
        """Whether its runs are evaluated on the test sets."""
        return self.oracle or not self.select


class Overview(Model):
    """Experiments and studies whose rows stand beside each other, under every condition."""

    title: str | None = Field(None, description="Heading of table and figure; its name where absent.")
    of: dict[str, str] = Field(
        min_length=1, description="Label -> an experiment, or a study whose combinations of values are conditions."
    )
    rows: tuple[str, ...] = Field((), description="Ids of the rows that are shown; all where absent.")
    seconds: bool = Field(False, description="Whether table and figure show the training time.")
    against: Setting | None = Field(
        None,
        description="A setting that all of them vary by numbers above 0. The figure then has lines against it (log "
        "scale), and a panel for each combination of the other values. Where absent, it is a grid of numbers.",
    )
