"""The base of all models of the configuration, and the kinds of values that several of them have."""

from __future__ import annotations

from collections.abc import Container, Sequence
from copy import copy
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
)

# Folders below the results, and rules of the workflow.
_TAKEN = (
    "all bench benchmarks collect collected data evaluate figures logs mediation prepare published range_classifier",
    "relevance_range segment studies study tables timing timing_figure timing_page train",
)


class Model(BaseModel):
    """Base of all models."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def given(self, *left_out: str) -> dict[str, Any]:
        """Return what the user wrote, without defaults and without some keys, as JSON has it."""
        return self.model_dump(mode="json", exclude_unset=True, exclude=set(left_out))


def or_empty(value: Any) -> Any:
    """Return an empty mapping for a key without a value."""
    return {} if value is None else value


def changes_of(model: type[Model], name: str) -> type[Model]:
    """Make a model with the same fields, none of which must be there; `given` has those that are."""
    fields: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        field = copy(field)
        field.default, field.default_factory = None, None
        fields[key] = (field.annotation, field)
    doc = f"Changes of {model.__name__}."
    return create_model(name, __base__=Model, __module__=model.__module__, __doc__=doc, **fields)


def not_in(taken: Container[str], why: str) -> AfterValidator:
    """Refuse names that are taken, and say why they are."""

    def check(name: str) -> str:
        if name in taken:
            raise ValueError(f"{name!r} is taken: {why}")
        return name

    return AfterValidator(check)


def told(expected: str) -> WrapValidator:
    """Say in one sentence what none of a union's members accepts."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"{expected}, not {value!r}") from None

    return WrapValidator(check)


def once(given: Sequence[Any]) -> Sequence[Any]:
    """Refuse a list in which something is there twice."""
    for one in given:
        if given.count(one) > 1:
            raise ValueError(f"{one!r} is given twice")
    return given


Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Name = Annotated[Identifier, not_in(" ".join(_TAKEN).split(), "it names a rule or another folder of the results")]
# Random numbers of an epoch have the seed 100,003 * seed + epoch, which must fit into 32 bits.
Seed = Annotated[int, Field(ge=0, le=42_948)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(once)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[
    Count | Annotated[float, Field(gt=0, lt=1)], told("must be a whole number from 1, or a share below 1")
]
Text = Annotated[str, StringConstraints(min_length=1)]
Score = Literal["accuracy", "macro_f1", "balanced_accuracy", "auc"]
_SETTING = r"^(data|backbone|params|training)(\.[A-Za-z_][A-Za-z0-9_]*)*$"
Setting = Annotated[str, StringConstraints(pattern=_SETTING)]
