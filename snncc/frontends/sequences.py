"""Networks whose input is a sequence: their axes of timesteps and samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["STATIC", "Frames"]


@dataclass(frozen=True)
class Frames:
    """How a network takes its input.

    Attributes:
        timesteps: T of a sequence; 0: the input is static.
        batch_first: The network reads sequences as ``[N, T, ...]``, not ``[T, N, ...]``.
    """

    timesteps: int = 0
    batch_first: bool = False

    def sample(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample, of which a timestep has ``shape``."""
        return (self.timesteps, *shape) if self.timesteps else shape

    @contextmanager
    def given_to(self, module: torch.nn.Module) -> Iterator[None]:
        """Within this context ``module`` is called with ``[N, T, ...]``, whatever it reads."""
        if not self.timesteps or self.batch_first:
            yield
            return
        turn = module.register_forward_pre_hook(lambda _, args: (args[0].transpose(0, 1),))
        try:
            yield
        finally:
            turn.remove()


STATIC = Frames()
