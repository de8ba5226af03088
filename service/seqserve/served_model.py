"""One model with everything that serves it."""

import dataclasses
from collections.abc import Iterable

from seqserve.admission import Admission
from seqserve.cache_budget import CacheBudget
from seqserve.explainer import Explainer
from seqserve.lanes import Lanes
from seqserve.manifest import Manifest
from seqserve.model_metrics import ModelMetrics
from seqserve.sequence import Sequence
from seqserve.shared_answers import SharedAnswers
from seqserve.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, slots=True)
class ServedModel:
    """One model with everything that serves it."""

    manifest: Manifest
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    lanes: Lanes
    admission: Admission
    """Of inputs."""
    token_admission: Admission
    """Of their source tokens."""
    metrics: ModelMetrics
    budget: CacheBudget | None
    """Of the cache; None for models without one."""
    is_batch_invariant: bool
    """Whether export found results not to depend on the batch; it has not looked at devices."""
    shared_answers: SharedAnswers | None = None
    """What spares the lanes inputs that come again; None where nothing is shared."""
    explainer: Explainer | None = None
    """What tells of its attention; None for models that were exported without that."""

    @property
    def label(self) -> str:
        """``name/version``, for messages."""
        return f"{self.manifest.name}/{self.manifest.version}"

    def submit(self, sequences: Iterable[Sequence]) -> None:
        """Has the sequences of a call answered. Event loop only.

        Raises:
            UnavailableError: The lanes are closed or dead; what was handed over before is still
                answered.
        """
        (self.shared_answers or self.lanes).submit(sequences)
