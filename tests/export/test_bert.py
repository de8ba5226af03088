"""BERT weights of Hugging Face give in our encoder what they give in theirs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from seqserve.task_record import Task
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.families import read_encoder
from tiny_sentence_folder import make_tiny_bert


def _make_weights(**switches: Any) -> tuple[Any, dict[str, Tensor]]:
    bert = make_tiny_bert(1, **switches)
    return bert.config, dict(bert.state_dict())


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_states_equal_transformers(activation: str) -> None:
    """States of valid positions are equal, with padding and without."""
    bert = make_tiny_bert(1, hidden_act=activation)
    model, _ = read_encoder(bert.config, bert.state_dict())
    tokens = torch.randint(0, 32, (3, 9), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([9, 1, 4], dtype=torch.int32)
    mask = (torch.arange(9) < lengths[:, None]).long()
    with torch.inference_mode():
        expected = bert(input_ids=tokens, attention_mask=mask).last_hidden_state
        actual = model(tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert (expected[row, :length] - actual[row, :length]).abs().max() < 1e-5


def test_token_types_equal_transformers() -> None:
    """A pair of texts, told apart by token types, gives equal states, too."""
    bert = make_tiny_bert(1)
    model, _ = read_encoder(bert.config, bert.state_dict())
    tokens, types = torch.tensor([[2, 5, 6, 3, 7, 3]]), torch.tensor([[0, 0, 0, 0, 1, 1]])
    with torch.inference_mode():
        expected = bert(input_ids=tokens, token_type_ids=types).last_hidden_state
        actual = model(tokens, torch.tensor([6], dtype=torch.int32), types)
        untyped = model(tokens, torch.tensor([6], dtype=torch.int32))
    assert (expected - actual).abs().max() < 1e-5
    assert (expected - untyped).abs().max() > 1e-2


def test_heads_and_prefixes_are_known() -> None:
    """Weights of a model with a head, named with a prefix, are read; the head is left out."""
    config, weights = _make_weights()
    prefixed = {f"bert.{name}": tensor for name, tensor in weights.items()}
    prefixed["cls.predictions.bias"] = torch.zeros(33)
    prefixed["bert.embeddings.position_ids"] = torch.arange(40)[None]
    model, head = read_encoder(config, prefixed)
    assert head is None
    token = weights["embeddings.word_embeddings.weight"]
    assert torch.equal(model.embedding.token.weight, token)


def test_all_problems_are_in_one_error() -> None:
    """Missing, unexpected and misshapen tensors are listed together."""
    config, weights = _make_weights()
    del weights["encoder.layer.1.output.dense.bias"]
    weights["encoder.layer.0.adapter.weight"] = torch.zeros(2)
    weights["embeddings.LayerNorm.bias"] = torch.zeros(5)
    with pytest.raises(CheckpointError) as caught:
        read_encoder(config, weights)
    message = str(caught.value)
    assert "missing encoder.layers.1.feed_forward.down.bias" in message
    assert "unexpected encoder.layer.0.adapter.weight" in message
    assert "embedding.norm.bias has shape (5,), expected (32,)" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "whisper"}, "\"model_type\" is 'whisper'; supported are: albert, bert, "),
        ({"position_embedding_type": "relative_key"}, "'relative_key' is not supported"),
        ({"is_decoder": True}, "a bert decoder"),
        ({"hidden_act": "mish"}, "'mish' is not supported; supported are gelu, "),
        ({"num_attention_heads": 8}, "the head size must be a multiple of 8"),
    ],
)
def test_unsupported_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    """What our encoder cannot compute is refused by name."""
    config, weights = _make_weights()
    for field, value in changes.items():
        setattr(config, field, value)
    with pytest.raises(UnsupportedError, match=message):
        read_encoder(config, weights)


def test_malformed_configuration_is_refused() -> None:
    """A configuration that makes no model says why."""
    config, weights = _make_weights()
    config.num_attention_heads = 0
    with pytest.raises(CheckpointError, match="the bert configuration is malformed: ZeroDivision"):
        read_encoder(config, weights)


def test_names_of_tensorflow_are_known() -> None:
    """Norms of checkpoints that were converted from TensorFlow have other names."""
    config, weights = _make_weights()
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in weights.items()
    }
    model, _ = read_encoder(config, older)
    bias = weights["encoder.layer.1.output.LayerNorm.bias"]
    assert torch.equal(
        model.get_parameter("encoder.layers.1.feed_forward_residual.norm.bias"), bias
    )


def test_one_purpose_has_one_tensor() -> None:
    """Two names of one bias must hold the same."""
    config, weights = _make_weights()
    weights |= {
        "cls.predictions.bias": torch.zeros(33),
        "cls.predictions.decoder.bias": torch.ones(33),
    }
    message = "two different tensors for one purpose: cls.predictions.decoder.bias"
    with pytest.raises(CheckpointError, match=message):
        read_encoder(config, weights, Task.FILL_MASK)
