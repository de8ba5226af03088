"""Attention of the client, from arguments to the request and from its reply to a result."""

from typing import Any

import numpy as np
import pytest

from seqserve.attention_kind import AttentionKind
from seqserve.attention_reduction import Reduction
from seqserve.client.attention_messages import attend_request, to_attention
from seqserve.servicers import attention_messages
from seqserve.servicers.attention_choice import AttentionChoice
from seqserve.v1 import attention_pb2, priority_pb2


def test_what_is_given_is_set_and_nothing_else() -> None:
    """Texts or token ids; words become numbers."""
    request = attend_request(
        "a",
        {
            "model": "m",
            "version": "2",
            "target": [4, 5],
            "text_pair": "b",
            "source_language": "de",
            "target_language": "en",
            "kinds": ["cross", "encoder_self"],
            "layers": [1],
            "heads": [0, 2],
            "reduction": "mean_heads",
            "truncate": True,
            "priority": "high",
        },
    )
    assert (request.model_name, request.model_version, request.input.text) == ("m", "2", "a")
    assert (request.input.text_pair, list(request.target.token_ids.values)) == ("b", [4, 5])
    assert (request.input.source_language, request.input.target_language) == ("de", "en")
    assert list(request.kinds) == [
        attention_pb2.ATTENTION_KIND_CROSS,
        attention_pb2.ATTENTION_KIND_ENCODER_SELF,
    ]
    assert (list(request.layers), list(request.heads), request.truncate) == ([1], [0, 2], True)
    assert request.reduction == attention_pb2.ATTENTION_REDUCTION_MEAN_HEADS
    assert request.priority == priority_pb2.PRIORITY_HIGH
    bare = attend_request([7, 8], {})
    assert list(bare.input.token_ids.values) == [7, 8]
    assert not bare.HasField("target")
    assert bare.ListFields() == [(bare.DESCRIPTOR.fields_by_name["input"], bare.input)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["self"]}, "`kinds` must be of encoder_self, decoder_self, cross, but has"),
        ({"reduction": "sum"}, "`reduction` must be one of none, mean_heads, mean, max, rollout"),
    ],
)
def test_unknown_words_are_refused(options: Any, message: str) -> None:
    """With those that are known."""
    with pytest.raises(ValueError, match=message):
        attend_request("a", options)
    with pytest.raises(TypeError, match=r"`kinds` must be a list: \['cross'\]"):
        attend_request("a", {"kinds": "cross"})  # type: ignore[typeddict-item]


def test_weights_survive_the_way() -> None:
    """What the server packs, at once, is what the client reads, number by number."""
    generator = np.random.default_rng(1)
    layers = [generator.random((3, 40, 7)).astype(np.float32) for _ in range(2)]
    choice = AttentionChoice({AttentionKind.CROSS: (4, 1)}, (0, 5, 2), Reduction.NONE)
    packed = attention_messages.to_attention(AttentionKind.CROSS, choice, layers)
    message = attention_pb2.AttendResponse(attentions=[packed], target_text="t")
    message.attend_duration.FromMilliseconds(1500)
    found = to_attention(attention_pb2.AttendResponse.FromString(message.SerializeToString()))
    assert found.cross is not None
    assert (found.cross.layers, found.cross.heads) == ((4, 1), (0, 5, 2))
    assert (found.cross.weights == np.stack(layers)).all()
    assert found.cross.weights.dtype == np.float32
    assert (found.encoder_self, found.decoder_self, found.seconds) == (None, None, 1.5)
