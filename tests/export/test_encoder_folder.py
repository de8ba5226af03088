"""Hugging Face folders of encoders: every family with every head, or a refusal by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from torch import nn

from seqserve.task_record import (
    ClassificationRecord,
    MaskFillingRecord,
    RerankingRecord,
    Task,
    TokenClassificationRecord,
)
from seqserve_export import transformers_reference
from seqserve_export.encoder_folder import read_encoder_folder
from seqserve_export.errors import CheckpointError, UnsupportedError, VerificationError
from seqserve_export.prediction_graph import PredictGraph
from seqserve_export.source import EmbeddingSource, PredictionSource
from seqserve_export.source_folder import read_source_folder
from seqserve_export.verification import make_row
from tiny_encoder_folder import (
    MODEL_CLASSES,
    VARIANTS,
    Variant,
    find_variant,
    make_tiny_encoder_folder,
)


def _read(folder: Path, **settings: Any) -> EmbeddingSource | PredictionSource:
    return read_encoder_folder(folder, is_pickle_allowed=False, **settings)


def _edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


@pytest.mark.parametrize("task", tuple(MODEL_CLASSES))
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_head_of_every_family_is_mapped(variant: Variant, task: Task, tmp_path: Path) -> None:
    """Reading compares with transformers, on samples and on the longest source."""
    source = _read(make_tiny_encoder_folder(tmp_path, variant, task))
    assert source.family == variant.model_type
    _, reference = source.checks
    assert reference.max_abs_difference < 1e-4
    assert reference.count == 12 + 1 + 6
    # Of the 80 positions, those up to the padding token's id are not for sources.
    offsets = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}
    assert source.max_source_length == 80 - offsets.get(variant.model_type, 0)


@pytest.mark.parametrize(
    ("task", "settings", "record"),
    [
        (
            Task.CLASSIFY,
            {"id2label": {0: "bad", 1: "good"}},
            ClassificationRecord(
                graph="predict.onnx",
                has_token_types=True,
                labels=("bad", "good"),
                problem_type="single_label",
            ),
        ),
        (
            Task.CLASSIFY,
            {"problem_type": "multi_label_classification"},
            ClassificationRecord(
                graph="predict.onnx",
                has_token_types=True,
                labels=("LABEL_0", "LABEL_1", "LABEL_2"),
                problem_type="multi_label",
            ),
        ),
        (
            Task.CLASSIFY,
            {"problem_type": "regression", "num_labels": 1},
            ClassificationRecord(
                graph="predict.onnx",
                has_token_types=True,
                labels=("LABEL_0",),
                problem_type="regression",
            ),
        ),
        (
            Task.RERANK,
            {},
            RerankingRecord(graph="predict.onnx", has_token_types=True, activation="sigmoid"),
        ),
        (
            Task.RERANK,
            {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
            RerankingRecord(graph="predict.onnx", has_token_types=True, activation="identity"),
        ),
        (
            Task.RERANK,
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            RerankingRecord(graph="predict.onnx", has_token_types=True, activation="identity"),
        ),
        (
            Task.CLASSIFY_TOKENS,
            {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}},
            TokenClassificationRecord(
                graph="predict.onnx", labels=("O", "B-PER", "I-PER"), unknown_token_id=1
            ),
        ),
        (
            Task.FILL_MASK,
            {},
            MaskFillingRecord(graph="predict.onnx", mask_token="[MASK]", mask_token_id=4),
        ),
    ],
)
def test_head_is_described(
    task: Task, settings: dict[str, Any], record: object, tmp_path: Path
) -> None:
    """Task, labels, kind of problem and activation come from the configuration."""
    source = _read(make_tiny_encoder_folder(tmp_path, find_variant("bert"), task, **settings))
    assert isinstance(source, PredictionSource)
    assert (source.task, source.record) == (task, record)


def test_cross_encoder_folder_is_read(tmp_path: Path) -> None:
    """A folder of a CrossEncoder has one module, and names its activation in a file of its own."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), Task.RERANK)
    modules = [{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    settings = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"}
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    source = read_source_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, PredictionSource)
    assert isinstance(source.record, RerankingRecord)
    assert source.record.activation == "identity"
    _edit(path, activation_fn="mine.Activation")
    with pytest.raises(UnsupportedError, match=r"'mine.Activation' .* supported are torch.nn.Sigm"):
        read_source_folder(folder, is_pickle_allowed=False)


@pytest.mark.parametrize("has_types", [True, False])
@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Identity])
def test_pairs_score_as_in_sentence_transformers(
    activation: type[nn.Module], has_types: bool, tmp_path: Path
) -> None:
    """A CrossEncoder that the library saved gives its scores of pairs, with types and without."""
    folder = make_tiny_encoder_folder(tmp_path / "bare", find_variant("bert"), Task.RERANK)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if has_types else [])]
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "model_input_names": names}
    _edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", **tokens)
    library = CrossEncoder(str(folder), device="cpu", activation_fn=activation())
    library.save_pretrained(str(tmp_path / "saved"))
    source = read_source_folder(tmp_path / "saved", is_pickle_allowed=False)
    assert isinstance(source, PredictionSource)
    assert isinstance(source.record, RerankingRecord)
    assert source.record.activation == activation.__name__.lower()
    assert source.record.has_token_types == has_types
    pairs = [("the cat sat", "a dog slept"), ("rain", "rain fell over the hills"), ("a", "a")]
    expected = library.predict(pairs, batch_size=1, show_progress_bar=False)
    graph = PredictGraph(source.model, source.head)
    for pair, score in zip(pairs, expected, strict=True):
        encoding = source.tokenizer.encode(*pair)
        types = torch.tensor([encoding.type_ids]) if has_types else None
        with torch.inference_mode():
            logits = graph(*make_row(encoding.ids), types)
        assert float(activation()(logits)) == pytest.approx(float(score), abs=1e-5)


def test_bare_encoder_is_pooled_by_mean_with_a_note(tmp_path: Path) -> None:
    """What the folder cannot say is said by the note, or by the caller."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), Task.EMBED)
    source, chosen = _read(folder), _read(folder, pooling="cls")
    assert isinstance(source, EmbeddingSource)
    assert isinstance(chosen, EmbeddingSource)
    assert source.pooling == ("mean",)
    assert "their mean is taken; choose another way with --pooling" in source.notes[0]
    assert (chosen.pooling, chosen.notes) == (("cls",), ())


def test_pooling_of_a_head_cannot_be_chosen(tmp_path: Path) -> None:
    """An option that would have no effect is refused."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), Task.CLASSIFY)
    with pytest.raises(UnsupportedError, match=r"pooling 'max' .* has a head \(classify\)"):
        _read(folder, pooling="max")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "bert",
            {"architectures": ["BertForQuestionAnswering"]},
            "BertForQuestionAnswering is not supported; supported are: BertModel, "
            "BertForSequenceClassification, BertForTokenClassification, BertForMaskedLM",
        ),
        ("bert", {"architectures": ["BertModel", "BertForMaskedLM"]}, "BertModel, BertForMaskedLM"),
        ("bert", {"auto_map": {"AutoModel": "mine.Model"}}, "code of its own .* never run"),
        ("bert", {"hidden_size": 40}, "2 heads of a hidden size of 40: the head size must be a"),
        ("albert", {"inner_group_num": 2}, '"inner_group_num" 2 is not supported'),
        ("mpnet", {"relative_attention_num_buckets": 16}, '"relative_attention_num_buckets" 16'),
        ("roberta", {"pad_token_id": None}, '"pad_token_id" is null'),
        ("deberta-v3", {"relative_attention": False}, '"relative_attention": false'),
        ("deberta-v3", {"pos_att_type": "p2p"}, "'p2p' is not supported; supported are c2p"),
        ("deberta-v3", {"embedding_size": 16}, '"embedding_size" 16 is not supported'),
        ("deberta-v2-xlarge", {"conv_groups": 2}, '"conv_groups" 2 is not supported'),
        ("deberta-v2-xlarge", {"conv_kernel_size": 4}, '"conv_kernel_size" 4 .* odd numbers'),
        ("modernbert", {"mlp_bias": True}, '"attention_bias" False with "mlp_bias" True'),
        ("modernbert", {"num_attention_heads": 4}, "must be a multiple of 16"),
        (
            "modernbert",
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            '"rope_type" \'linear\' is not supported; supported is "default"',
        ),
    ],
)
def test_unsupported_settings_are_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """What our encoder cannot compute is refused by name, with what it can."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant(name), Task.EMBED)
    if "rope_scaling" in changes:
        _edit(folder / "config.json", rope_parameters=None)
    _edit(folder / "config.json", **changes)
    with pytest.raises(UnsupportedError, match=message):
        _read(folder)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (Task.CLASSIFY, {"id2label": {"0": "a", "5": "b"}}, r"every label from 0 on.*\[0, 5\]"),
        (Task.CLASSIFY, {"id2label": {"0": "a", "1": "b"}}, "head.output.weight has shape"),
        (Task.FILL_MASK, {"tie_word_embeddings": False}, "no output layer, though"),
        (Task.EMBED, {"max_position_embeddings": 70}, "embedding.position.weight has shape"),
        (Task.EMBED, {"vocab_size": 9}, "the source tokenizer has ids up to"),
    ],
)
def test_malformed_folders_are_refused(
    task: Task, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """What does not fit is named."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), task)
    _edit(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        _read(folder)


def test_all_problems_of_weights_are_in_one_error(tmp_path: Path) -> None:
    """Missing, unexpected and misshapen tensors of encoder and head are listed together."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), Task.CLASSIFY)
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.bias"]
    weights["bert.adapter.weight"] = torch.zeros(2)
    weights["bert.embeddings.LayerNorm.bias"] = torch.zeros(5)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        _read(folder)
    message = str(caught.value)
    assert "missing head.output.bias" in message
    assert "unexpected adapter.weight" in message
    assert "embedding.norm.bias has shape (5,), expected (32,)" in message


def test_unknown_mask_token_is_refused(tmp_path: Path) -> None:
    """A mask token that the tokenizer lacks is named, with the file to name another in."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("roberta"), Task.FILL_MASK)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"'<mask>'; name it as .* in tokenizer_config.json"):
        _read(folder)
    path = folder / "special_tokens_map.json"
    path.write_text('{"mask_token": {"content": "[MASK]"}}', encoding="utf-8")
    source = _read(folder)
    assert isinstance(source, PredictionSource)
    assert source.mask_token == 4


def test_longest_source_is_the_smaller_limit(tmp_path: Path) -> None:
    """The tokenizer's limit counts where it is below that of the positions."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), Task.EMBED)
    path = folder / "tokenizer_config.json"
    _edit(path, model_max_length=24)
    assert _read(folder).max_source_length == 24
    _edit(path, model_max_length=int(1e30))
    assert _read(folder).max_source_length == 80


def test_difference_from_transformers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that computes anything else than the library's never becomes a served one."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), Task.CLASSIFY)
    load = transformers_reference._load

    def load_another(plan: transformers_reference.ReferencePlan) -> Any:
        model = load(plan)
        with torch.no_grad():
            model.classifier.bias += 0.01
        return model

    monkeypatch.setattr(transformers_reference, "_load", load_another)
    message = r"checkpoint: transformers and our model.*: source 0 of \d+ tokens differs by 0\.0"
    with pytest.raises(VerificationError, match=message):
        _read(folder)
