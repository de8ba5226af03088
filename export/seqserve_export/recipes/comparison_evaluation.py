"""How many errors a trained variant makes, by the length of the source."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

from seqserve_export.checkpoint import load_checkpoint
from seqserve_export.recipes.comparison_task import MAX_RENDERED_LETTERS, Question, Task
from seqserve_export.recipes.comparison_training import Run
from seqserve_export.recipes.decoding import decode_all
from seqserve_export.recipes.evaluation import score_predictions

EVALUATION_FILE = "evaluation.json"
_PHRASE_BOUNDS = (0, 8, 16, 24, 32, 60)
_IMAGE_BOUNDS = (0, 4, 5, 6, 7, MAX_RENDERED_LETTERS)
"""Of the lengths in letters that are counted together; the second is the first one's last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model makes of the test, in torch."""

    tokens: list[list[int]]
    """Of each question, without start and end."""
    scores: dict[str, Any]
    """Errors over all and by length."""


def evaluate_run(run: Run, task: Task, questions: Sequence[Question]) -> Answers:
    """Answers the test with the checkpoint of a run, greedily; what is known is read."""
    path = run.folder / EVALUATION_FILE
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["num_questions"] == len(questions):
            return Answers(tokens=known["tokens"], scores=known["scores"])
    checkpoint = load_checkpoint(run.checkpoint)
    tokens = decode_all(
        checkpoint.model,
        [question.example.source for question in questions],
        checkpoint.generation,
        num_beams=1,
    )
    scores = score_by_length(tokens, questions, _IMAGE_BOUNDS if task.is_image else _PHRASE_BOUNDS)
    found = {"num_questions": len(questions), "scores": scores, "tokens": tokens}
    path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return Answers(tokens=tokens, scores=scores)


def score_by_length(
    tokens: Sequence[list[int]], questions: Sequence[Question], bounds: Sequence[int]
) -> dict[str, Any]:
    """The share of target tokens that are wrong, over all and by the length of the source.

    Lengths no question has are left out.
    """
    pairs = list(zip(tokens, questions, strict=True))
    by_length = []
    for shorter, longest in itertools.pairwise(bounds):
        part = [pair for pair in pairs if shorter < pair[1].num_letters <= longest]
        if part:
            span = {"from": shorter + 1, "to": longest, "num_questions": len(part)}
            by_length.append(span | _score(part))
    return _score(pairs) | {"by_length": by_length}


def _score(pairs: Sequence[tuple[list[int], Question]]) -> dict[str, float]:
    score = score_predictions(
        [tokens for tokens, _ in pairs], [question.example.targets for _, question in pairs]
    )
    return {
        "token_error_rate": score.phoneme_error_rate,
        "target_error_rate": score.word_error_rate,
    }
