"""What a configuration may hold about timing."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from isnet_bench.config.models import Backbone, Entries, Row, rows_of
from isnet_bench.config.values import Count, Identifier, Model, Positive, changes_of, not_in

MAIN = "main"
"""Name of the timing case that the section itself describes."""

Operation = Literal["training step", "heatmaps", "heatmap loss", "inference"]


class _TimingKeys(Model):
    classes: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
    methods: Annotated[Entries, Field(min_length=1, description="Methods, or rows as an experiment has them.")]
    backbone: Backbone
    image_size: int = Field(ge=8)
    channels: Count = Field(1, description="Of the images.")
    batch_size: Count
    operations: Annotated[tuple[Operation, ...], Field(min_length=1)] = Field(
        ("training step",), description="What is timed."
    )
    rounds: Count
    warmup: Count = Field(1, description="Calls before the timed ones, in each sweep over all cases.")
    step_limit_seconds: Positive | None = Field(
        None, description="A method whose step takes longer is not timed with more classes."
    )


TimingChanges = changes_of(_TimingKeys, "TimingChanges")
CaseName = Annotated[Identifier, not_in({MAIN}, "it names the case that the section itself describes")]


class Timing(_TimingKeys):
    """The timing case "main", and further cases that differ from it in the keys that they name."""

    cases: dict[CaseName, TimingChanges] = Field({})

    def case(self, name: str) -> TimingCase:
        """Return one case with nothing left open. Raises KeyError if there is none of that name."""
        own = {} if name == MAIN else self.cases[name].given()
        return TimingCase.model_validate_json(json.dumps({**self.given("cases"), **own, "name": name}))


class TimingCase(_TimingKeys):
    """What is timed, with nothing left open."""

    name: str

    @property
    def suffix(self) -> str:
        """What its files have at the end of their names."""
        return f"_{self.name}"

    @property
    def rows(self) -> dict[str, Row]:
        """What is timed, in the configuration's order."""
        return rows_of(self.methods, None)
