"""One small input through an engine, before anybody waits for its answer.

It shows that the graphs compute something, reads weights that are mapped from files, and has
onnxruntime make what it makes during a first run.
"""

from pathlib import Path

from seqserve.cache_budget import CacheBudget
from seqserve.engine import Engine
from seqserve.errors import ModelFolderError
from seqserve.generate_options import GenerateOptions
from seqserve.intake import SchedulerLimits
from seqserve.manifest import Manifest
from seqserve.scheduler import Scheduler
from seqserve.search import make_search
from seqserve.sequence import Answer, Sequence

_SOURCE_LENGTH = 8
_NUM_NEW_TOKENS = 2


class _Nobody:
    """The future of a sequence that no caller waits for."""

    def done(self) -> bool:
        """Never abandoned."""
        return False


def rehearse(
    engine: Engine,
    folder: Path,
    manifest: Manifest,
    limits: SchedulerLimits,
    budget: CacheBudget | None,
) -> None:
    """Runs one input to its end; the engine is left as it was.

    Args:
        engine: What computes; no worker may use it yet.
        folder: The model, for messages.
        manifest: What it says of itself.
        limits: Those its worker will have.
        budget: Of its cache.

    Raises:
        ModelFolderError: It cannot be computed, or what comes out is not finite.
    """
    try:
        answer = _run(
            engine, _make_sequence(manifest), Scheduler(engine.first_phase, limits, budget)
        )
        engine.release()
    except Exception as error:  # onnxruntime's exceptions share no public base class
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFolderError(f"{folder} cannot be computed: {first_line}") from error
    if isinstance(answer, Exception):
        raise ModelFolderError(f"{folder} cannot be computed: {answer}") from answer


def _make_sequence(manifest: Manifest) -> Sequence:
    """Tokens from all over the vocabulary, a mask among them where a model fills masks."""
    size, record = manifest.source_vocabulary_size, manifest.generation
    length = min(_SOURCE_LENGTH, manifest.max_source_length)
    tokens = [index * size // length for index in range(length)]
    if manifest.mask_filling is not None:
        tokens[0] = manifest.mask_filling.mask_token_id
    search = None
    if record is not None:
        options = GenerateOptions(
            max_new_tokens=min(_NUM_NEW_TOKENS, record.max_target_length),
            num_beams=record.num_beams,
        )
        search = make_search(
            options,
            decoder_start_token_id=record.decoder_start_token_id,
            eos_token_id=record.eos_token_id,
        )
    return Sequence(source_tokens=tuple(tokens), future=_Nobody(), search=search, submitted_at=0.0)


def _run(engine: Engine, sequence: Sequence, scheduler: Scheduler) -> Answer | Exception:
    scheduler.add(sequence)
    while True:
        batch = scheduler.next_batch(0.0)
        assert batch is not None
        for event in scheduler.update(batch, engine.run(batch), 0.0):
            if event.answer is not None:
                return event.answer
