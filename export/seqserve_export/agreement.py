"""How far the answers of a model in a smaller format agree with those of the original in fp32.

=================  ====================================================  ========
answers            what is measured                                      at least
=================  ====================================================  ========
embeddings         the lowest cosine of the two embeddings of a text     0.99
labels, masks      share of decisions for the same label or token        0.995
sets of labels     share of texts with the same labels above one half    0.995
scores             share of pairs that both put in the same order        0.995
=================  ====================================================  ========

Of cosines the lowest counts: whoever searches misses the one text that is lost, and the mean of
some hundred, which is reported beside it, hardly moves for it.

No case is left out. But where the original holds two answers for equally good, to within its slack,
the other one agrees, too. Such a case is counted as a near tie, so that everybody sees how much
rests on them. The slack of labels is rounding alone, what fp32 graphs may differ from torch; masks
and scores have more, see below. Numbers that are not finite agree with nothing.

Shapes: N decisions of a row, V labels or vocabulary entries, E embedding width, R rows.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seqserve_export.onnx_runner import Floats
from seqserve_export.verification import TOLERANCE

LEAST_COSINE = 0.99
LEAST_SHARE = 0.995
MASK_SLACK = -math.log(0.9)
"""Of logits, for masks: a token that the original holds for at least nine tenths as probable as its
best one fills a mask as well. Tens of thousands compete, and often several fit."""
SCORE_SLACK = 0.02
"""Of scores, as a share of their standard deviation: texts that the original can hardly tell apart
have no order."""
_ROUNDING = 2 * TOLERANCE
"""As a share of the largest magnitude, if that is above 1: each of two logits may be half as far
off."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """What was measured."""

    measure: str
    """In words."""
    count: int
    """Texts, decisions or pairs."""
    value: float
    threshold: float
    """Least value that is good enough."""
    mean: float | None = None
    """Of cosines, the lowest of which is the value."""
    num_near_ties: int = 0
    """Cases that agree by the slack alone."""

    @property
    def is_enough(self) -> bool:
        """Whether the value reaches the threshold; NaN does not."""
        return self.value >= self.threshold


class Yardstick(Protocol):
    """The original's answers, as far as others are measured by them."""

    def measure(self, answers: Iterable[Floats]) -> Agreement:
        """Compares answers with the original's, row by row."""
        ...


class Cosines:
    """Embeddings [E] of rows."""

    def __init__(self, originals: Iterable[Floats]) -> None:
        self._originals = list(originals)

    def measure(self, answers: Iterable[Floats]) -> Agreement:
        """Compares answers with the original's, row by row."""
        pairs = zip(self._originals, answers, strict=True)
        cosines = np.array([_measure_cosine(original, answer) for original, answer in pairs])
        cosines = cosines.clip(-1, 1)
        return Agreement(
            measure="lowest cosine of embeddings",
            count=len(cosines),
            # Of NaN and others the lowest is NaN.
            value=float(cosines.min()),
            threshold=LEAST_COSINE,
            mean=float(cosines.mean()),
        )


class Choices:
    """Logits [N, V] of rows, each decision one of V."""

    def __init__(self, originals: Iterable[Floats], what: str, slack: float = 0.0) -> None:
        """Keeps the choices the original holds for good.

        Args:
            originals: Its answers.
            what: What is decided, for the report.
            slack: How far the logit of another choice may be below that of the best.
        """
        self._what = what
        self._good: list[set[int]] = []
        self._best: list[int] = []
        for logits in originals:
            for row in logits:
                least = row.max() - slack - _measure_rounding(row)
                self._best.append(int(row.argmax()))
                self._good.append(set(np.flatnonzero(row >= least).tolist()))

    def measure(self, answers: Iterable[Floats]) -> Agreement:
        """Compares answers with the original's, decision by decision."""
        chosen = [
            int(row.argmax()) if np.isfinite(row).all() else None
            for logits in answers
            for row in logits
        ]
        is_good = [one in good for one, good in zip(chosen, self._good, strict=True)]
        num_best = sum(one == best for one, best in zip(chosen, self._best, strict=True))
        return _share(self._what, is_good, num_near_ties=sum(is_good) - num_best)


class LabelSets:
    """Logits [1, V] of rows, each label above one half or not."""

    def __init__(self, originals: Iterable[Floats]) -> None:
        self._originals = np.concatenate(list(originals))  # [R, V]

    def measure(self, answers: Iterable[Floats]) -> Agreement:
        """Compares answers with the original's, row by row."""
        logits = np.concatenate(list(answers))
        is_same = (logits > 0) == (self._originals > 0)
        is_undecided = np.abs(self._originals) <= _measure_rounding(self._originals)
        is_good = ((is_same | is_undecided) & np.isfinite(logits)).all(axis=1)
        num_near_ties = int((is_good & ~is_same.all(axis=1)).sum())
        return _share("same set of labels", is_good.tolist(), num_near_ties=num_near_ties)


class Orders:
    """Scores [1, V] of rows, by each of which the rows of a group are put in order."""

    def __init__(
        self, originals: Iterable[Floats], groups: Sequence[NDArray[np.intp]] | None = None
    ) -> None:
        """Keeps scores.

        Args:
            originals: The original's.
            groups: Which rows are compared with each other; None means all.
        """
        self._originals = np.concatenate(list(originals))  # [R, V]
        slack = SCORE_SLACK * self._originals.std(axis=0)
        self._slack = np.maximum(slack, _measure_rounding(self._originals)[:, 0].max())  # [V]
        self._groups = [np.arange(len(self._originals))] if groups is None else groups

    def measure(self, answers: Iterable[Floats]) -> Agreement:
        """Compares answers with the original's, pair by pair."""
        scores = np.concatenate(list(answers))
        scores = np.where(np.isfinite(scores), scores, np.nan)
        is_good: list[bool] = []
        num_near_ties = 0
        for group in self._groups:
            first, second = (group[places] for places in np.triu_indices(len(group), 1))
            wanted = self._originals[first] - self._originals[second]
            found = scores[first] - scores[second]
            is_same = np.sign(wanted) == np.sign(found)
            is_near_tie = ~is_same & (np.abs(wanted) <= self._slack) & np.isfinite(found)
            num_near_ties += int(is_near_tie.sum())
            is_good += (is_same | is_near_tie).ravel().tolist()
        return _share("same order of pairs of scores", is_good, num_near_ties=num_near_ties)


def _share(measure: str, is_good: Sequence[bool], *, num_near_ties: int) -> Agreement:
    return Agreement(
        measure=measure,
        count=len(is_good),
        value=sum(is_good) / len(is_good) if is_good else 1.0,
        threshold=LEAST_SHARE,
        num_near_ties=num_near_ties,
    )


def _measure_cosine(original: Floats, answer: Floats) -> float:
    wanted, found = original.astype(np.float64), answer.astype(np.float64)
    if not np.isfinite(found).all():
        return math.nan
    if not wanted.any() and not found.any():
        return 1.0
    norms = max(float(np.linalg.norm(wanted) * np.linalg.norm(found)), 1e-30)
    return float(wanted @ found) / norms


def _measure_rounding(logits: Floats) -> NDArray[np.float32]:
    """What is rounding in each row, [..., V] to [..., 1]."""
    largest = np.abs(logits).max(axis=-1, keepdims=True)
    return np.asarray(_ROUNDING * np.maximum(1, largest), np.float32)
