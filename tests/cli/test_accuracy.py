"""What is said of an accuracy, also where all samples are right, or there are few."""

import math

import numpy as np
import pytest

from snncc.cli.accuracy import accuracy, accuracy_text, interval


def found(right, samples):
    return accuracy(np.arange(samples) < right, np.ones(samples, bool))


@pytest.mark.parametrize(
    ("right", "samples", "text"),
    [
        (941, 1000, "94.1 % (standard error 0.7 points)"),
        (5, 10, "50.0 % (standard error 15.8 points)"),
        (1000, 1000, "100 % (95 % interval: 99.6 to 100.0 %)"),
        (0, 1000, "0 % (95 % interval: 0.0 to 0.4 %)"),
        (996, 1000, "99.6 % (95 % interval: 99.0 to 99.8 %)"),
        (1, 1, "100 % (95 % interval: 20.7 to 100.0 %)"),
        (3, 7, "42.9 % (95 % interval: 15.8 to 75.0 %)"),
    ],
)
def test_an_error_is_given_only_where_it_means_something(right, samples, text):
    assert accuracy_text(found(right, samples)) == text


@pytest.mark.parametrize("samples", [1, 2, 7, 60, 1000])
def test_the_interval_is_where_the_score_test_does_not_reject(samples):
    for right in range(samples + 1):
        low, high = interval(right, samples)
        assert 0 <= low <= right / samples <= high <= 1
        for p in (low, high):
            if 0 < p < 1:
                score = (right - samples * p) / math.sqrt(samples * p * (1 - p))
                assert abs(score) == pytest.approx(1.959964, abs=1e-5)


def test_without_labels_nothing_is_claimed():
    assert accuracy_text({"accuracy": None}) == "not measured: no labels"
