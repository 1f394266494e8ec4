"""Rounding with feedback: each weight's error is made up for by the weights after it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["LARGEST", "round_with_feedback"]

Real = npt.NDArray[np.float64]

#: Larger layers are rounded to nearest: a matrix of their inputs' products has its square.
LARGEST = 4608
#: Share of the mean variance added to each input's, so that silent inputs do no harm.
_DAMPING = 0.01


def round_with_feedback(weights: Real, products: Real, limit: int) -> Real:
    """Integer weights whose sums err little, where inputs go together as ``products`` says.

    Minimises the mean squared error of the sums greedily (optimal brain quantisation in a fixed
    order).

    Args:
        weights: In steps, (outputs, inputs).
        products: Means of the products of any two inputs, (inputs, inputs).
        limit: Largest absolute integer.
    """
    size = weights.shape[1]
    damping = _DAMPING * max(float(np.trace(products)) / size, 1e-9)
    factor = np.linalg.cholesky(np.linalg.inv(products + damping * np.eye(size))).T
    rest, done = weights.copy(), np.empty_like(weights)
    for i in range(size):
        done[:, i] = np.clip(np.rint(rest[:, i]), -limit, limit)
        error = (rest[:, i] - done[:, i]) / factor[i, i]
        rest[:, i + 1 :] -= np.outer(error, factor[i, i + 1 :])
    return done
