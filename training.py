"""What connects a model's inputs with a data set: the sources that ``brickc train`` runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import DataError, UsageError
from .frontends.model import Model
from .runtime.data import Batches, Dataset
from .runtime.trainer import Batch

__all__ = ["ModelData", "input_names"]


def input_names(model: Model) -> tuple[str, str | None]:
    """The model's input for examples, and that for labels; an autoencoder has none.

    Raises UsageError if the model has other inputs.
    """
    floats = [n for n, type in model.inputs.items() if type.dtype.is_float]
    labels = [n for n, type in model.inputs.items() if type.dtype.is_integer]
    if len(floats) != 1 or len(labels) > 1 or not model.inputs[floats[0]].rank:
        raise UsageError(
            f"{model.name}: training needs one input of floats and one of integer labels",
            got=", ".join(f"{n}: {t}" for n, t in model.inputs.items()),
        )
    return floats[0], labels[0] if labels else None


@dataclass(frozen=True)
class ModelData:
    """Batches of a data set under the names of a model's two inputs."""

    dataset: Dataset
    size: int
    seed: int
    #: the model's input for examples, and that for labels if it has one
    names: tuple[str, str | None]

    @staticmethod
    def of(model: Model, dataset: Dataset, size: int, seed: int) -> ModelData:
        """Fit a data set to a model with one float input and at most one integer input.

        Raises UsageError if the model has other inputs, DataError if the data do not fit.
        """
        names = input_names(model)
        batch, *shape = model.inputs[names[0]].shape
        if isinstance(batch, int):
            if batch != size:
                raise UsageError("the model's batch size is fixed", got=size, expected=batch)
        fixed = [n for n in shape if isinstance(n, int)]
        if len(fixed) != len(shape):
            raise UsageError(f"{model.name}: the examples' size is not fixed", got=shape)
        limit = model.label_limit(names[1]) if names[1] is not None else 0
        if limit and dataset.classes > limit:
            raise DataError(f"{dataset.name} has more classes than {model.name}",
                            got=dataset.classes, expected=f"at most {limit}")  # fmt: skip
        return ModelData(dataset.fit_to(fixed), size, seed, names)

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return len(self.training(0))

    def training(self, epoch: int) -> Sequence[Batch]:
        return Batches(self.dataset.train, self.size, self.names, self.seed, epoch)

    def held_out(self) -> Sequence[Batch]:
        return Batches(self.dataset.held_out, self.size, self.names, None)

    def describe(self) -> str:
        data = self.dataset
        text = f"{data.name}: {len(data.train):,} examples, {len(data.held_out):,} held out"
        return f"{text} ({data.note})" if data.note else text
