"""What is observed of a model before its precision is chosen."""

from pathlib import Path

import pytest
import torch

from seqserve_export.calibration import calibrate
from seqserve_export.source import GenerationSource
from seqserve_export.source_folder import read_source_folder
from tiny_checkpoint import EOS_TOKEN_ID, make_tiny_checkpoint


@pytest.mark.parametrize(("max_target_length", "num_positions"), [(30, 30), (64, 64), (90, 64)])
def test_targets_are_observed_as_far_as_positions_reach(
    tmp_path: Path, max_target_length: int, num_positions: int
) -> None:
    """Up to 64 of a target that does not end: keys far behind may be larger than the first ones."""
    torch.set_num_threads(1)
    folder = make_tiny_checkpoint(tmp_path, 5, max_target_length=max_target_length)
    source = read_source_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, GenerationSource)
    with torch.no_grad():
        source.model.head.weight[EOS_TOKEN_ID] = 0.0
    calibration = calibrate(source, [[5, 6, EOS_TOKEN_ID]])
    assert len(calibration.inputs("head")) == num_positions
