"""BERT weights of Hugging Face give in our encoder what they give in theirs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.families import read_encoder
from tiny_sentence_folder import make_tiny_bert


def _make_weights(**switches: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    bert = make_tiny_bert(1, **switches)
    return bert.config.to_dict(), dict(bert.state_dict())


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_states_equal_transformers(activation: str) -> None:
    """States of valid positions are equal, with padding and without."""
    bert = make_tiny_bert(1, hidden_act=activation)
    model = read_encoder(bert.config.to_dict(), dict(bert.state_dict()))
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
    model = read_encoder(bert.config.to_dict(), dict(bert.state_dict()))
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
    model = read_encoder(config, prefixed)
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
        ({"model_type": "albert"}, "\"model_type\" is 'albert'; supported are: bert"),
        ({"position_embedding_type": "relative_key"}, "'relative_key' is not supported"),
        ({"is_decoder": True}, "a BERT decoder"),
        ({"hidden_act": "mish"}, "'mish' is not supported"),
        ({"num_attention_heads": 8}, "the head size must be a multiple of 8"),
    ],
)
def test_unsupported_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    """What our encoder cannot compute is refused by name."""
    config, weights = _make_weights()
    with pytest.raises(UnsupportedError, match=message):
        read_encoder(config | changes, weights)


def test_incomplete_configuration_is_refused() -> None:
    """A configuration without a size names it."""
    config, weights = _make_weights()
    del config["hidden_size"]
    with pytest.raises(CheckpointError, match="hidden_size"):
        read_encoder(config, weights)
