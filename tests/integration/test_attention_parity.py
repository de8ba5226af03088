"""Every family's weights of attention are those of ``transformers``, which computes them eagerly.

What is compared is the model that graphs are traced from, for every family; and the explain graph
itself, in ragged batches, for one of each way to attend. Export compares the two for every model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from seqserve.attention_kind import AttentionKind, weight_names
from seqserve.task_record import Task
from seqserve_export.explain_graph import EncoderExplainGraph, Explainable, ExplainGraph
from seqserve_export.explanation_verification import ExplainRunner
from seqserve_export.onnx_writer import write_graph
from seqserve_export.source import EmbeddingSource, GenerationSource
from seqserve_export.source_folder import read_source_folder
from seqserve_export.weight_file import WeightFile
from tiny_encoder_folder import VARIANTS, Variant, make_tiny_encoder_folder
from tiny_hugging_face import FAMILIES, make_hugging_face_folder

TOLERANCE = 1e-4
LENGTHS = ((9, 6), (1, 1), (12, 3))
"""Of sources and targets."""
TRACED = ("umt5", "deberta-v3", "modernbert")
"""With a bias for each layer; in encoders with a bias of contents, and with windows and rotary
positions. Plain attention is traced by the exports of ``test_attention``."""
Weights = dict[str, np.ndarray[Any, Any]]
"""[H, T, S] by the names of outputs."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small matrices gain nothing from more."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_encoder_decoder_attention_is_that_of_transformers(family: str, tmp_path: Path) -> None:
    """Encoder self, decoder self and cross, of every layer and head."""
    folder = make_hugging_face_folder(family, tmp_path / "source", seed=1)
    source = read_source_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, GenerationSource)
    graph = ExplainGraph(source.model)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager")
    config = source.model.config
    generator = np.random.default_rng(3)
    # Some families count positions without padding, which no target has.
    allowed = np.arange(config.source_vocabulary_size) != model.config.pad_token_id
    rows = [
        tuple(generator.choice(np.flatnonzero(allowed), length).tolist() for length in lengths)
        for lengths in LENGTHS
    ]
    expected = []
    for tokens, targets in rows:
        with torch.inference_mode():
            outputs = model.eval()(
                input_ids=torch.tensor([tokens]),
                decoder_input_ids=torch.tensor([targets]),
                output_attentions=True,
            )
        expected.append(
            _name(AttentionKind.ENCODER_SELF, outputs.encoder_attentions)
            | _name(AttentionKind.DECODER_SELF, outputs.decoder_attentions)
            | _name(AttentionKind.CROSS, outputs.cross_attentions)
        )
    names = ("input_ids", "decoder_input_ids")
    _check(graph, [dict(zip(names, row, strict=True)) for row in rows], expected)
    if family in TRACED:
        _check_traced(graph, tmp_path, [dict(zip(names, row, strict=True)) for row in rows])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_encoder_attention_is_that_of_transformers(variant: Variant, tmp_path: Path) -> None:
    """Of every layer, as often as it runs, and every head."""
    folder = make_tiny_encoder_folder(tmp_path / "source", variant, Task.EMBED)
    source = read_source_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, EmbeddingSource)
    graph = EncoderExplainGraph(source.model, has_token_types=False)
    model = transformers.AutoModel.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    )
    generator = np.random.default_rng(3)
    rows = [generator.integers(5, 60, length).tolist() for length, _ in LENGTHS]
    expected = []
    for tokens in rows:
        with torch.inference_mode():
            outputs = model.eval()(torch.tensor([tokens]), output_attentions=True)
        expected.append(_name(AttentionKind.ENCODER_SELF, outputs.attentions))
    feeds = [{"input_ids": tokens} for tokens in rows]
    _check(graph, feeds, expected)
    if variant.name in TRACED:
        _check_traced(graph, tmp_path, feeds)


def _name(kind: AttentionKind, layers: Sequence[Tensor]) -> Weights:
    names = weight_names(kind, len(layers))
    return {name: layer[0].numpy() for name, layer in zip(names, layers, strict=True)}


def _check(graph: Explainable, rows: list[dict[str, list[int]]], expected: list[Weights]) -> None:
    """Compares what the module records with what transformers says of each row alone."""
    for row, wanted in zip(rows, expected, strict=True):
        found = _explain(graph, row)
        assert found.keys() == wanted.keys()
        for name, weights in found.items():
            assert weights == pytest.approx(wanted[name], abs=TOLERANCE), name
            assert weights.sum(axis=-1) == pytest.approx(1.0, abs=1e-5)
    # What is compared must not be the same for all keys.
    assert max(float(weights.std()) for weights in expected[0].values()) > 1e-2


@torch.inference_mode()
def _explain(graph: Explainable, row: dict[str, list[int]]) -> Weights:
    tokens, *others = (torch.tensor([values]) for values in row.values())
    lengths = torch.tensor([tokens.shape[1]], dtype=torch.int32)
    heads = [torch.arange(graph.model.config.num_heads)] * len(graph.output_names())
    outputs = graph.eval()(tokens, lengths, *others, *heads)
    named = zip(graph.output_names(), outputs, strict=True)
    return {name: weights[0].numpy() for name, weights in named}


def _check_traced(graph: Explainable, folder: Path, rows: list[dict[str, list[int]]]) -> None:
    """Compares ragged batches, padded with tokens of all kinds, with the module on rows alone."""
    path = write_graph(graph, folder, "explain", WeightFile(folder))
    runner = ExplainRunner(path, graph.model.config.num_heads)
    for filler in (0, 7):
        feeds: dict[str, Any] = {
            "source_lengths": np.array([len(row["input_ids"]) for row in rows], np.int32)
        }
        for name in rows[0]:
            longest = max(len(row[name]) for row in rows)
            feeds[name] = np.array(
                [row[name] + [filler] * (longest - len(row[name])) for row in rows]
            )
        found = runner.run(feeds)
        for index, row in enumerate(rows):
            for name, wanted in _explain(graph, row).items():
                _, num_queries, num_keys = wanted.shape
                weights = found[name][index, :, :num_queries]
                assert weights[..., :num_keys] == pytest.approx(wanted, abs=TOLERANCE), name
                assert (weights[..., num_keys:] == 0).all(), name
