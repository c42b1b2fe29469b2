"""Counts by class against a count by hand; every warning comes when it should, once, and not before."""

import pytest
import torch

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.method import PseudoLabels
from maskmatch.training.pseudo_label_watch import (
    EMPTY_STEPS,
    LOST_STEPS,
    CollapseWatch,
    Counts,
    PseudoLabelCounter,
    measures,
)

CLASSES = 4


@pytest.mark.parametrize("with_truth", [False, True])
def test_counts(with_truth):
    generator = torch.Generator().manual_seed(0)

    def labels():
        drawn = torch.randint(0, CLASSES + 1, (2, 9, 7), generator=generator)
        return drawn.masked_fill(drawn == CLASSES, IGNORE_INDEX).to(torch.uint8)

    counter = PseudoLabelCounter(CLASSES, 0.5, "cpu")
    expected = torch.zeros(5, CLASSES, dtype=torch.int64)
    for _ in range(3):
        target, label, truth = labels(), labels(), labels()
        confidence = torch.rand(label.shape, generator=generator)
        counter.count(target, PseudoLabels(label, confidence), truth if with_truth else None)
        for c in range(CLASSES):
            confident = (label == c) & (confidence >= 0.5)
            known = confident & (truth != IGNORE_INDEX)
            rows = [target == c, label == c, confident, known & with_truth, known & (truth == c) & with_truth]
            expected[:, c] += torch.tensor([row.sum() for row in rows])
    assert torch.equal(counter.take(), expected)
    assert not counter.take().any()


def test_measures():
    found = measures(Counts([9, 0, 1], [10, 0, 40], [5, 0, 10], [4, 0, 2], [3, 0, 0]))
    assert found["coverage_by_class"] == [0.5, None, 0.25]
    assert found["accuracy"] == 0.5 and found["accuracy_by_class"] == [0.75, None, 0.0]
    assert "accuracy" not in measures(Counts([1], [1], [1], [0], [0]))
    assert measures(Counts([1, 1], [0, 0], [0, 0], [0, 0], [0, 0])) == {}


def watch():
    return CollapseWatch(["sky", "road", "pole"], 0.95)


def counts(labeled, confident):
    return Counts(labeled, [max(1, count) for count in confident], confident, [0] * 3, [0] * 3)


HEALTHY = counts([50, 40, 10], [60, 39, 1])


def test_a_healthy_run_warns_of_nothing():
    watching = watch()
    assert not any(watching(10, HEALTHY) for _ in range(100))


def test_one_class():
    watching = watch()
    assert watching(10, counts([50, 40, 10], [99, 1, 0])) == []
    (warning,) = watching(10, counts([50, 40, 10], [996, 4, 0]))
    assert "99.6% of the confident pseudo-labels are sky" in warning and "--method.threshold" in warning
    assert watching(10, counts([50, 40, 10], [996, 4, 0])) == []  # said already
    assert watching(10, HEALTHY) == []
    assert len(watching(10, counts([50, 40, 10], [0, 0, 7]))) == 1  # another one
    assert watch()(10, counts([995, 4, 1], [999, 1, 0])) == []  # as the labels are
    few = Counts([50, 40, 10], [1000, 1000, 1000], [40, 0, 0], [0] * 3, [0] * 3)
    assert watch()(10, few) == []  # the first that are confident at all


def test_no_coverage():
    watching = watch()
    nothing = counts([50, 40, 10], [0, 0, 0])
    said = [watching(10, nothing) for _ in range(EMPTY_STEPS // 10 + 3)]
    assert [bool(warnings) for warnings in said] == [False] * (EMPTY_STEPS // 10 - 1) + [True] + [False] * 3
    assert f"--method.threshold 0.95 for {EMPTY_STEPS} steps" in said[EMPTY_STEPS // 10 - 1][0]
    watching(10, HEALTHY)
    assert not any(watching(10, nothing) for _ in range(EMPTY_STEPS // 10 - 1))


def test_a_lost_class():
    watching = watch()
    without = counts([50, 40, 10], [60, 40, 0])
    said = [warning for _ in range(2 * LOST_STEPS // 10) for warning in watching(10, without)]
    (warning,) = said
    assert warning.startswith("pole has 10.0% of the labelled pixels and no confident pseudo-label")
    rare = watch()
    assert not any(rare(10, counts([5000, 4000, 1], [60, 40, 0])) for _ in range(2 * LOST_STEPS // 10))
    late = watch()
    late(10, HEALTHY)
    assert not any(late(10, without) for _ in range(LOST_STEPS // 10 - 1))
