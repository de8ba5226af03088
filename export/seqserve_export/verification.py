"""What every verification is made of: comparisons with a tolerance, and the sources they run on.

Export verifies the graphs before anything reaches the store, see
:mod:`seqserve_export.generation_verification` and :mod:`seqserve_export.embedding_verification`.
The yardstick is always torch on one row alone, without padding; so a graph that lets a row see
padding or its neighbours differs, whatever torch would do in a batch.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from seqserve.manifest import VerificationRecord
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.errors import VerificationError
from seqserve_export.onnx_runner import Floats

TOLERANCE = 1e-4
"""Most difference of states and logits in fp32, see :class:`Comparison`."""
NUM_INVARIANCE_ROWS = 64
"""Rows of the batch in which each row must come out as it does alone."""
SEED = 20170612
_MASKED_SHARE = 0.15
_MAX_UNTABLED_LENGTH = 1024


class Comparison:
    """Compares tensors that should be equal, and keeps the largest difference.

    A difference counts in units of the largest magnitude of the expected tensor, if that is above
    1: rounding grows with the numbers, and logits of some hundreds are nothing unusual. Or, of
    tensors as a whole, the norm of the difference counts in units of the norm of the expected one:
    so for formats in which a last bit can move single numbers far.
    """

    def __init__(
        self, check: str, tolerance: float = TOLERANCE, *, is_of_norms: bool = False
    ) -> None:
        self.check = f"{check}, norms" if is_of_norms else check
        """What is compared with what, on what."""
        self.tolerance = tolerance
        self._is_of_norms = is_of_norms
        self.count = 0
        self.max_abs_difference = 0.0
        self.is_bit_identical = True

    def add(self, expected: Floats, actual: Floats, where: str) -> None:
        """Compares one case.

        Raises:
            VerificationError: The shapes differ, a value is not finite, or the difference exceeds
                the tolerance.
        """
        self.count += 1
        if expected.shape != actual.shape:
            raise VerificationError(
                f"{self.check}: {where} has shape {actual.shape}, expected {expected.shape}"
            )
        difference = self._measure(expected, actual)
        # Written so that NaN fails.
        if not difference <= self.tolerance:
            raise VerificationError(
                f"{self.check}: {where} differs by {difference:.3g}, tolerance {self.tolerance:.3g}"
            )
        self.max_abs_difference = max(self.max_abs_difference, difference)
        self.is_bit_identical &= expected.tobytes() == actual.tobytes()

    def _measure(self, expected: Floats, actual: Floats) -> float:
        if self._is_of_norms:
            wanted = expected.astype(np.float64)
            norm = max(float(np.linalg.norm(wanted)), 1e-30)
            return float(np.linalg.norm(actual - wanted)) / norm
        magnitude = max(1.0, float(np.abs(expected).max(initial=0.0)))
        return float(np.abs(expected - actual).max(initial=0.0)) / magnitude

    def to_record(self) -> VerificationRecord:
        """The comparison as the manifest keeps it."""
        return VerificationRecord(
            check=self.check,
            count=self.count,
            max_abs_difference=self.max_abs_difference,
            tolerance=self.tolerance,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found; that it exists means that every comparison passed."""

    records: tuple[VerificationRecord, ...]
    is_batch_invariant: bool
    """Rows came out bit-identical alone and in a mixed batch, on this machine."""
    greedy_agreement: float | None = None
    """Share of steps at which the best token is that of the original; None for encoders."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effort:
    """How much of a verification a model of its size can afford."""

    num_searches: int
    """Samples that are searched."""
    max_search_tokens: int
    max_target_length: int
    """Length of the longest target that is decoded step by step."""
    num_invariance_rows: int
    """Rows that are run alone and in one batch."""
    num_threads: int
    """Threads of torch; 0 means as many as it has chosen."""


def choose_effort(model: nn.Module) -> Effort:
    """Chooses by the number of parameters: some minutes for any model."""
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if num_parameters < 50e6:
        return Effort(
            num_searches=12,
            max_search_tokens=40,
            max_target_length=10_000,
            num_invariance_rows=NUM_INVARIANCE_ROWS,
            num_threads=1,
        )
    if num_parameters < 300e6:
        return Effort(
            num_searches=6,
            max_search_tokens=16,
            max_target_length=100,
            num_invariance_rows=NUM_INVARIANCE_ROWS,
            num_threads=0,
        )
    return Effort(
        num_searches=2,
        max_search_tokens=10,
        max_target_length=40,
        num_invariance_rows=16,
        num_threads=0,
    )


@contextlib.contextmanager
def torch_reference(effort: Effort | None = None) -> Iterator[None]:
    """Runs torch without gradients, and on one thread unless a large model affords more.

    The reference is many small forwards. On busy cores the threads of torch spin while they wait
    for each other, and a forward of a millisecond can take a second.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1 if effort is None else effort.num_threads or num_threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(num_threads)


def make_sources(
    generator: np.random.Generator, num_sources: int, vocabulary_size: int, max_length: int
) -> list[list[int]]:
    """Random sources of random lengths, the first of ``max_length`` and the second of 1."""
    lengths = generator.integers(1, max_length + 1, num_sources)
    lengths[:2] = [max_length, 1][:num_sources]
    return [generator.integers(0, vocabulary_size, length).tolist() for length in lengths]


def longest_verified(config: EncoderConfig, max_source_length: int) -> int:
    """Length of the longest source to verify with.

    That is as long as the model allows, so that its last position is used, too. Where positions
    have no table, a length serves that is longer than any window.
    """
    if config.positions == "learned":
        return max_source_length
    return min(max_source_length, _MAX_UNTABLED_LENGTH)


def make_token_types(generator: np.random.Generator, length: int) -> list[int]:
    """Types of a pair of texts: zeros up to a random place, then ones."""
    first_length = int(generator.integers(0, length + 1))
    return [0] * first_length + [1] * (length - first_length)


def mask_some(generator: np.random.Generator, tokens: Sequence[int], mask_token: int) -> list[int]:
    """Puts masks in random places of a source, at least one."""
    is_masked = generator.random(len(tokens)) < _MASKED_SHARE
    is_masked[generator.integers(len(tokens))] = True
    masked: list[int] = np.where(is_masked, mask_token, tokens).tolist()
    return masked


def tokenize_samples(
    tokenizer: Tokenizer, samples: Sequence[str], max_length: int
) -> list[list[int]]:
    """Tokens of real sources, cut to what the model can read; empty ones are left out."""
    encoded = tokenizer.encode_batch(list(samples))
    return [encoding.ids[:max_length] for encoding in encoded if encoding.ids]


def make_row(tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One sequence as torch takes it: tokens [1, S] and lengths [1]."""
    return torch.tensor([tokens]), torch.tensor([len(tokens)], dtype=torch.int32)


def to_floats(tensor: Tensor) -> Floats:
    """A torch tensor as an array."""
    floats: NDArray[np.float32] = tensor.numpy()
    return floats
