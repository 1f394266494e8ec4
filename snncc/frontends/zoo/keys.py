"""Keys and shapes of a checkpoint's tensors, as readers of the zoo's families ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snncc.errors import BadInputError
from snncc.frontends.checkpoint_keys import plain_key

__all__ = ["Stored"]


class Stored:
    """Shapes of tensors by key, without what wrappers put in front of all keys.

    Args:
        tensors: Of a checkpoint; only keys and shapes are read.
        stems: Keys of a network's first layer, as spelled by the versions of a family.
        family: What the error names.

    Attributes:
        stem: The one of ``stems`` that is there.
        shapes: Shape by key.

    Raises:
        BadInputError: None of the stems is there.
    """

    def __init__(self, tensors: Mapping[str, Any], stems: tuple[str, ...], family: str) -> None:
        shapes = {plain_key(key): tuple(tensor.shape) for key, tensor in tensors.items()}
        # Blocks have keys that end as the first layer's do, and all of them are longer.
        by_length = sorted(shapes, key=len)
        first = next(((key, s) for s in stems for key in by_length if _ends(key, s)), None)
        if first is None:
            wanted = " or ".join(stems)
            raise BadInputError(f"the checkpoint has no {wanted}, so it is no {family}")
        key, self.stem = first
        prefix = key.removesuffix(self.stem)
        self.shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()}

    def __contains__(self, key: str) -> bool:
        return key in self.shapes

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor.

        Raises:
            BadInputError: There is no such tensor.
        """
        shape = self.shapes.get(key)
        if shape is None:
            raise BadInputError(f"the checkpoint has no {key}, so it is none of this family")
        return shape

    def require_axes(self, key: str, counts: tuple[int, ...]) -> None:
        """A tensor has one of so many axes.

        Raises:
            BadInputError: There is no such tensor, or it has not.
        """
        if len(self.shape(key)) not in counts:
            told = f"{key} has shape {list(self.shape(key))}"
            raise BadInputError(f"{told}, so it is none of this family")

    def size(self, key: str, axis: int) -> int:
        """Size of an axis of a tensor.

        Raises:
            BadInputError: There is no such tensor, or it has fewer axes.
        """
        shape = self.shape(key)
        if axis >= len(shape):
            raise BadInputError(f"{key} has shape {list(shape)}, so it is none of this family")
        return int(shape[axis])

    def rows(self, key: str) -> int:
        """Size of a tensor's first axis; see ``size``."""
        return self.size(key, 0)

    def rows_or_none(self, key: str) -> int:
        """Likewise; 0 if there is none."""
        return self.rows(key) if key in self else 0

    def blocks(self, stage: str) -> int:
        """How many blocks a list of blocks has."""
        inside = (key.removeprefix(f"{stage}.") for key in self.shapes if key.startswith(stage))
        return len({rest.partition(".")[0] for rest in inside if rest[0].isdigit()})

    def channels(self) -> int:
        """Of the input.

        Raises:
            BadInputError: The first layer is no 2-D convolution.
        """
        shape = self.shapes[self.stem]
        if len(shape) != 4:
            raise BadInputError(
                f"{self.stem} has shape {list(shape)}, so it is no such convolution"
            )
        return int(shape[1])


def _ends(key: str, stem: str) -> bool:
    return key == stem or key.endswith(f".{stem}")
