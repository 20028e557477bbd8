"""Test and retest: pairs by id, whatever their order."""

import numpy as np
import pytest

from oncofm.biomarkers.agreement import intraclass_correlation
from oncofm.biomarkers.retest import retest_agreement
from oncofm.errors import EvaluationError

TEST, RETEST = np.array([9, 6, 8, 7, 10, 6]), np.array([8, 2, 8, 6, 9, 7])


def risks(values, rows=(0, 1, 2, 3, 4, 5), head="h"):
    return {
        "lesion_id": list(rows),
        "head": [head] * len(rows),
        "risk": [values[row] for row in rows],
    }


def test_pairs_by_id():
    (found,) = retest_agreement(risks(TEST), risks(RETEST, (3, 1, 5, 0, 2, 4)), ["lesion_id"])
    assert (found.head, found.class_name) == ("h", "")
    assert found.correlation == intraclass_correlation(np.stack([TEST, RETEST], axis=1))


def test_every_class():
    def table(p):
        return {
            "lesion_id": np.repeat(range(6), 2).tolist(),
            "head": ["h"] * 12,
            "class": ["no", "yes"] * 6,
            "probability": np.stack([1 - p, p], axis=1).ravel().tolist(),
        }

    found = retest_agreement(table(TEST / 10), table(RETEST / 10), ["lesion_id"])
    assert [pair.class_name for pair in found] == ["no", "yes"]
    expected = intraclass_correlation(np.stack([TEST, RETEST], axis=1)).value
    assert [pair.correlation.value for pair in found] == pytest.approx([expected, expected])


@pytest.mark.parametrize(
    ("retest", "sentence"),
    [
        (risks(RETEST, (0, 1, 2, 3, 4)), "1 of the lesions or classes of head 'h' are in only one"),
        (risks(RETEST, head="g"), "different heads"),
        (risks([1, 2, None, 4, 5, 6]), "1 of 6 measurements are missing"),
        ({"lesion_id": [1], "risk": [1]}, "predictions lacks head"),
        ({"lesion_id": [1], "head": ["h"]}, "predictions lacks class, probability"),
    ],
)
def test_refused(retest, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        retest_agreement(risks(TEST), retest, ["lesion_id"])
