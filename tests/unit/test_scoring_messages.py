"""Scores of targets, from arguments to the request and from its reply to results."""

import pytest

from seqserve.client.arguments import Source
from seqserve.client.scoring_messages import Targets, score_request
from seqserve.v1 import priority_pb2


def test_targets_are_those_of_one_text_or_an_entry_for_each_input() -> None:
    """Texts or token ids, one or several."""
    for targets in ("x", ["x"]):
        (one,) = score_request("a", targets, "m", "2", True).inputs
        assert (one.text, [target.text for target in one.targets]) == ("a", ["x"])
    inputs: list[Source] = ["a", [4, 5]]
    two: list[Source] = ["y", [6, 7]]
    targets_of_each: list[Targets] = ["x", two]
    request = score_request(inputs, targets_of_each, "m", "2", True, "de", ["en", "fr"], "high")
    assert request.priority == priority_pb2.PRIORITY_HIGH
    assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)
    first, second = request.inputs
    assert [target.text for target in first.targets] == ["x"]
    assert list(second.token_ids.values) == [4, 5]
    assert second.targets[0].text == "y"
    assert list(second.targets[1].token_ids.values) == [6, 7]
    assert [one.source_language for one in request.inputs] == ["de", "de"]
    assert [one.target_language for one in request.inputs] == ["en", "fr"]


def test_targets_must_match_the_inputs() -> None:
    """One entry too few would score the wrong pairs."""
    with pytest.raises(ValueError, match="there are 1 for 2 inputs"):
        score_request(["a", "b"], ["x"], "", "", False)
    with pytest.raises(TypeError, match="must be wrapped in a list"):
        score_request("a", [5, 6], "", "", False)
