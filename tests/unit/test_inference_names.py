"""How errors of our own requests are told to callers of the Open Inference Protocol."""

import subprocess
import sys

import pytest

from processes import ROOT
from seqserve.errors import InvalidRequestError
from seqserve.inference_protocol.error_path import rename, renamed


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("inputs", "text"),
        ("inputs[2]", "text[2]"),
        ("inputs[2].text", "text[2]"),
        ("inputs[2].text_pair", "text_pair[2]"),
        ("inputs[0].token_ids.values[3]", "input_ids[0][3]"),
        ("inputs[0].token_ids", "input_ids[0]"),
        ("inputs[1].target_prefix_text", "target_prefix[1]"),
        ("inputs[1].target_language", "target_language[1]"),
        ("input.text", "text"),
        ("options.num_beams", "num_beams"),
        ("options.suppressed_sequences[0].text", "suppressed_sequences[0].text"),
        ("options", "parameters"),
        ("ignore_labels.labels[1]", "ignore_labels[1]"),
        ("documents[4]", "documents[4]"),
        ("max_inputs_per_request", "max_inputs_per_request"),
    ],
)
def test_paths_are_those_of_tensors_and_parameters(path: str, expected: str) -> None:
    """What the caller typed stands in its error."""
    assert rename(path) == expected


def test_only_what_is_quoted_is_renamed() -> None:
    """Sentences stay sentences."""
    with pytest.raises(InvalidRequestError) as caught, renamed():
        raise InvalidRequestError("inputs[1]", "`inputs[1]` is one of the inputs with options")
    assert str(caught.value) == "`text[1]` is one of the inputs with options"
    assert caught.value.field == "text[1]"


def test_the_client_leaves_names_of_the_protocol_to_others() -> None:
    """Two packages that register the same messages cannot be imported into one process."""
    code = (
        "import sys, seqserve.client, seqserve.commands\n"
        "found = [name for name in sys.modules if name.endswith('open_inference_pb2')]\n"
        "sys.exit(', '.join(found) or 0)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "service")}
    )
