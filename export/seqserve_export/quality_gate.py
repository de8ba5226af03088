"""The quality gate: an encoder in a smaller format answers like the original, whatever it takes.

The answers of the written graph to texts the format was not chosen on are measured by those of the
original in fp32, see :mod:`seqserve_export.agreement`. While they agree too little, linear layers
go back to fp32, those that lost most by themselves first, and the graph is written anew: 1 of them,
2, 4, 8, and so on, then all, then the embeddings and attention, too. So an export never fails for
what a format costs, and what it took to reach the threshold is in the manifest.

NOTE: the measurement that ends this is that of the very graph that is served.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from seqserve.manifest import QualityRecord
from seqserve.task_record import (
    ClassificationRecord,
    MaskFillingRecord,
    RerankingRecord,
    TokenClassificationRecord,
)
from seqserve_export.agreement import (
    MASK_SLACK,
    Agreement,
    Choices,
    Cosines,
    LabelSets,
    Orders,
    Yardstick,
)
from seqserve_export.calibration import Calibration
from seqserve_export.encoder_answers import answer_in_torch
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.encoder_rows import (
    EncoderSource,
    Row,
    encode_groups,
    find_frame,
    make_random_groups,
)
from seqserve_export.errors import VerificationError
from seqserve_export.held_out_text import MAX_HELD_OUT, choose_held_out
from seqserve_export.onnx_runner import Floats
from seqserve_export.precision import Reduction, count_layers, rank_layers, restore, turn_back
from seqserve_export.source import EmbeddingSource, PredictionSource
from seqserve_export.verification import SEED, choose_effort, torch_reference

_LARGE_MODEL = 300e6
"""Parameters from which on a model is judged on half as many texts: torch takes minutes."""

Answer = Callable[[EncoderModel], Iterable[Floats]]
"""What the graph of a model answers to the rows of the gate, in their order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """The model that passed the gate."""

    reduction: Reduction[EncoderModel]
    record: QualityRecord


class QualityGate:
    """Holds the original's answers to held-out texts."""

    def __init__(
        self, source: EncoderSource, others: Sequence[str], calibrated_on: Sequence[str]
    ) -> None:
        """Runs the original.

        Args:
            source: The original in fp32.
            others: Texts that were given and not calibrated on.
            calibrated_on: Texts that were.
        """
        self._source = source
        num_parameters = sum(weight.numel() for weight in source.model.parameters())
        max_texts = MAX_HELD_OUT if num_parameters < _LARGE_MODEL else MAX_HELD_OUT // 2
        chosen = choose_held_out(others, calibrated_on, source.tokenizer, max_texts)
        groups, self._texts = encode_groups(source, chosen.texts), chosen.origin
        if not any(groups):
            groups, self._texts = make_random_groups(source, max_texts, SEED + 1)
        # Sorted by length, so that neighbours share a batch; rows remember their group.
        members = [(row, place) for place, group in enumerate(groups) for row in group]
        members.sort(key=lambda member: len(member[0][0]))
        self.rows: tuple[Row, ...] = tuple(row for row, _ in members)
        """What is asked."""
        places = np.array([place for _, place in members])
        self._groups = [np.flatnonzero(places == place) for place in range(len(groups))]
        self._frame = find_frame(source)
        with torch_reference(choose_effort(source.model)):
            self._yardstick = self._make_yardstick(
                self._leave_out_frame(answer_in_torch(source, source.model, self.rows))
            )

    def judge(
        self, reduction: Reduction[EncoderModel], calibration: Calibration, answer: Answer
    ) -> Judgement:
        """Turns layers of a model back to fp32 until it answers like the original.

        Args:
            reduction: The model in the smaller format; changed in place.
            calibration: What goes through the layers of the original.
            answer: Asks a model; asked last of the one that is returned.

        Raises:
            VerificationError: Even with everything in fp32 the answers are others.
        """
        original = self._source.model
        worst_first: tuple[str, ...] | None = None
        num_fp32 = 0
        while True:
            agreement = self._yardstick.measure(self._leave_out_frame(answer(reduction.model)))
            if agreement.is_enough:
                return Judgement(reduction=reduction, record=self._make_record(agreement, num_fp32))
            if reduction.model is original:
                raise VerificationError(
                    f"quality: {agreement.measure} is {agreement.value:.4g} in "
                    f"{agreement.count:,} cases with everything in fp32, and must be at least "
                    f"{agreement.threshold:g}: graph and torch disagree"
                )
            if worst_first is None:
                worst_first = rank_layers(reduction, original, calibration)
            if num_fp32 == len(worst_first):
                reduction = restore(reduction, original)
            else:
                num_fp32 = min(2 * num_fp32 or 1, len(worst_first))
                reduction = turn_back(reduction, original, worst_first[:num_fp32])

    def _make_yardstick(self, originals: Iterator[Floats]) -> Yardstick:
        if isinstance(self._source, EmbeddingSource):
            return Cosines(originals)
        match self._source.record:
            case RerankingRecord():
                return Orders(originals, self._groups)
            case MaskFillingRecord():
                return Choices(originals, "same best tokens of masks", MASK_SLACK)
            case TokenClassificationRecord():
                return Choices(originals, "same best labels of tokens")
            case ClassificationRecord(problem_type="multi_label"):
                return LabelSets(originals)
            case ClassificationRecord(problem_type="regression"):
                return Orders(originals)
            case ClassificationRecord():
                return Choices(originals, "same best labels")

    def _leave_out_frame(self, answers: Iterable[Floats]) -> Iterator[Floats]:
        """Answers without the labels of tokens that are nothing of the text."""
        has_labels_of_tokens = isinstance(self._source, PredictionSource) and isinstance(
            self._source.record, TokenClassificationRecord
        )
        for (tokens, _), answer in zip(self.rows, answers, strict=True):
            if has_labels_of_tokens:
                yield answer[[token not in self._frame for token in tokens]]
            else:
                yield answer

    def _make_record(self, agreement: Agreement, num_fp32: int) -> QualityRecord:
        return QualityRecord(
            **dataclasses.asdict(agreement),
            texts=self._texts,
            num_layers=count_layers(self._source.model),
            num_fp32_layers=num_fp32,
        )
