"""Reads a Hugging Face folder with an encoder: bare, or with a head.

========================================  ====================================================
file                                      what is read from it
========================================  ====================================================
``config.json``, ``model.safetensors``    encoder and head, see :mod:`seqserve_export.families`
``model.onnx``, ``onnx/model.onnx``       the same, see :mod:`seqserve_export.onnx_folder`
``tokenizer.json``                        the tokenizer, without its truncation and padding
``tokenizer_config.json``                 the longest source, the mask token, whether pairs have
                                          types of tokens
``config_sentence_transformers.json``     the activation of a cross-encoder, prompts
========================================  ====================================================

The head is the one of the class that ``"architectures"`` names. A bare encoder embeds; how to pool
it, its folder cannot say.
"""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor, nn

from seqserve.manifest import VerificationRecord
from seqserve.task_record import MaskFillingRecord, PredictionRecord, Task
from seqserve_export.checkpoint_config import CONFIG_FILE, read_config
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.encoder_files import (
    check_no_default_prompt,
    check_sentence_settings,
    read_max_source_length,
    read_prompts,
)
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.errors import UnsupportedError
from seqserve_export.families import find_family, read_encoder, to_encoder_config
from seqserve_export.json_file import read_json_object
from seqserve_export.onnx_folder import find_graph_task, find_graphs, read_onnx_weights
from seqserve_export.pooling import PoolingMode, SparsePooling
from seqserve_export.prediction_graph import PredictGraph
from seqserve_export.prediction_record import read_prediction_record
from seqserve_export.samples import SAMPLES
from seqserve_export.source import (
    EmbeddingSource,
    PredictionSource,
    check_source_length,
    check_vocabulary,
)
from seqserve_export.sparse_head import SparseActivation, SparseHead
from seqserve_export.tokenization.folder_tokenizers import read_folder_tokenizers
from seqserve_export.tokenization.tokenizer_verification import verify_tokenizers
from seqserve_export.transformers_reference import (
    ReferencePlan,
    compare_reference,
    compute_reference,
)
from seqserve_export.weights import check_weights, read_weights


class EncoderFolder:
    """A folder with ``config.json``, weights and tokenizer of one encoder."""

    def __init__(self, folder: Path, *, is_pickle_allowed: bool) -> None:
        """Reads all but the weights.

        Raises:
            UnsupportedError: The family, or something its configuration asks for, is not supported.
            CheckpointError: A file is absent or malformed, or the files do not fit each other.
        """
        self.folder = folder
        self.is_pickle_allowed = is_pickle_allowed
        find_family(read_json_object(folder / CONFIG_FILE).get("model_type"))
        self.config: Any = read_config(folder)
        self.encoder_config: EncoderConfig = to_encoder_config(self.config)
        self.max_source_length = read_max_source_length(folder, self.encoder_config)
        check_source_length(self.max_source_length, self.encoder_config)
        tokenizers = read_folder_tokenizers(folder, read_json_object(folder / CONFIG_FILE))
        if not isinstance(tokenizers.source, Tokenizer):
            raise UnsupportedError(
                f"the tokenizer of {folder}, {type(tokenizers.original).__name__}, is not "
                "supported for encoders; supported are those that run with the tokenizers library"
            )
        self.tokenizer: Tokenizer = tokenizers.source
        self.tokenizer_check = verify_tokenizers(tokenizers)
        self.tokenizer_notes = tokenizers.notes
        self.unknown_token_id: int | None = tokenizers.original.unk_token_id
        # Some tokenizers (ALBERT's) leave the types out though their models have several.
        self.has_token_types = (
            self.encoder_config.num_token_types > 1
            and "token_type_ids" in tokenizers.original.model_input_names
        )
        check_vocabulary(self.tokenizer, self.encoder_config.vocabulary_size, "source")
        self.graphs = find_graphs(folder, is_pickle_allowed=is_pickle_allowed)
        self._original = "transformers" if self.graphs is None else "ONNX graph"
        if self.graphs or check_weights(folder, is_pickle_allowed=is_pickle_allowed):
            # What is wrong with a graph or a pickle, our own reader says first.
            self._read_weights()

    def read_embedder(self) -> tuple[EncoderModel, VerificationRecord]:
        """Reads the encoder without a head, compared with the original.

        Raises:
            CheckpointError: The weights do not fit the configuration.
            VerificationError: The two models differ.
        """
        cases = compute_reference(self._plan(Task.EMBED, None))
        model, _ = read_encoder(self.config, self._read_weights())
        return model, compare_reference(cases, model, self._original)

    def read_sparse_embedder(
        self, pooling: SparsePooling, activation: SparseActivation
    ) -> tuple[EncoderModel, SparseHead, VerificationRecord]:
        """Reads the encoder with its head over the vocabulary, compared with the original.

        Raises:
            CheckpointError: The weights do not fit the configuration.
            VerificationError: The two models differ.
        """
        cases = compute_reference(self._plan(Task.FILL_MASK, None))
        model, head = read_encoder(self.config, self._read_weights(), Task.FILL_MASK)
        assert head is not None
        check = compare_reference(cases, PredictGraph(model, head), self._original)
        return model, SparseHead(head, pooling, activation), check

    def read_predictor(
        self, task: Task, record: PredictionRecord, notes: tuple[str, ...] = ()
    ) -> PredictionSource:
        """Reads the encoder with its head, compared with the original.

        Raises:
            CheckpointError: The weights do not fit the configuration.
            VerificationError: The two models differ.
        """
        mask_token = record.mask_token_id if isinstance(record, MaskFillingRecord) else None
        cases = compute_reference(self._plan(task, mask_token))
        model, head = read_encoder(self.config, self._read_weights(), task)
        assert head is not None
        return PredictionSource(
            name=self.folder.resolve().name,
            family=self.config.model_type,
            task=task,
            model=model,
            head=head,
            record=record,
            tokenizer=self.tokenizer,
            max_source_length=self.max_source_length,
            samples=SAMPLES,
            checks=(
                self.tokenizer_check,
                compare_reference(
                    cases, PredictGraph(model, head, mask_token=mask_token), self._original
                ),
            ),
            notes=(*self.tokenizer_notes, *notes),
        )

    def _read_weights(self) -> dict[str, Tensor]:
        if self.graphs is not None:
            return read_onnx_weights(self.graphs, self.config)
        return read_weights(self.folder, is_pickle_allowed=self.is_pickle_allowed)

    def _plan(self, task: Task, mask_token: int | None) -> ReferencePlan:
        return ReferencePlan(
            folder=self.folder,
            config=self.config,
            task=task,
            tokenizer=self.tokenizer,
            samples=SAMPLES,
            max_source_length=self.max_source_length,
            vocabulary_size=self.encoder_config.vocabulary_size,
            num_token_types=self.encoder_config.num_token_types,
            mask_token=mask_token,
            is_pickle_allowed=self.is_pickle_allowed,
            graph=None if self.graphs is None else self.graphs.encoder,
        )


def read_encoder_folder(
    folder: Path, *, is_pickle_allowed: bool, pooling: PoolingMode | None = None
) -> EmbeddingSource | PredictionSource:
    """Reads the folder.

    Args:
        folder: With ``config.json`` of a supported family.
        is_pickle_allowed: Whether weights may come from a pickle.
        pooling: How a bare encoder is pooled; None means the mean, with a note.

    Raises:
        UnsupportedError: The family, its head or another setting is not supported.
        CheckpointError: A file is absent or malformed, or the files do not fit each other.
        VerificationError: Our model is not the one of ``transformers``.
    """
    check_sentence_settings(folder)
    encoder = EncoderFolder(folder, is_pickle_allowed=is_pickle_allowed)
    task, notes = find_graph_task(encoder.graphs, encoder.config)
    if task == Task.EMBED:
        return _read_bare(encoder, pooling, notes)
    if pooling is not None:
        raise UnsupportedError(
            f"pooling {pooling!r} cannot be chosen for {folder}: it has a head ({task}), which "
            "pools in its own way"
        )
    if task != Task.RERANK:
        check_no_default_prompt(folder)
    record = read_prediction_record(
        folder,
        task,
        encoder.config,
        encoder.tokenizer,
        has_token_types=encoder.has_token_types,
        unknown_token_id=encoder.unknown_token_id,
    )
    return encoder.read_predictor(task, record, notes)


def _read_bare(
    encoder: EncoderFolder, pooling: PoolingMode | None, notes: tuple[str, ...]
) -> EmbeddingSource:
    model, reference = encoder.read_embedder()
    if pooling is None:
        notes += (
            "the folder does not say how token states become one embedding: their mean is taken; "
            "choose another way with --pooling",
        )
    return EmbeddingSource(
        name=encoder.folder.resolve().name,
        family=encoder.config.model_type,
        model=model,
        pooling=(pooling or "mean",),
        projection=nn.Sequential(),
        embedding_size=model.config.model_size,
        is_normalized=False,
        tokenizer=encoder.tokenizer,
        max_source_length=encoder.max_source_length,
        samples=SAMPLES,
        checks=(encoder.tokenizer_check, reference),
        prompts=read_prompts(encoder.folder),
        notes=(*encoder.tokenizer_notes, *notes),
    )
