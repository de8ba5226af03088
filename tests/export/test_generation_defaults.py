"""Decoding defaults of Hugging Face folders: what is read, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from seqserve_export.checkpoint import GenerationConfig
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.generation_defaults import read_generation_config

SPECIAL = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def read(folder: Path, **values: Any) -> GenerationConfig:
    """Reads a ``generation_config.json`` with these values."""
    content = json.dumps(SPECIAL | values)
    (folder / "generation_config.json").write_text(content, encoding="utf-8")
    return read_generation_config(folder, max_target_length=40)


def test_folders_that_sample_do_so_when_served(tmp_path: Path) -> None:
    """With their temperature and filters; unset ones are what transformers takes for them."""
    found = read(tmp_path, do_sample=True, temperature=0.5, top_k=0, top_p=0.75)
    assert (found.do_sample, found.temperature, found.top_k, found.top_p) == (True, 0.5, 0, 0.75)
    found = read(tmp_path, do_sample=True)
    assert (found.do_sample, found.temperature, found.top_k, found.top_p) == (True, 1.0, 50, 1.0)
    assert not read(tmp_path).do_sample


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_p", 0.1), ("typical_p", 0.5), ("epsilon_cutoff", 1e-3), ("eta_cutoff", 1e-3)],
)
def test_other_ways_to_sample_are_refused(tmp_path: Path, name: str, value: float) -> None:
    """Named with their value, and where to remove them."""
    with pytest.raises(UnsupportedError, match=f'"{name}": {value}; remove it from generation_con'):
        read(tmp_path, do_sample=True, **{name: value})


def test_beams_that_sample_are_refused(tmp_path: Path) -> None:
    """Our beams do not."""
    with pytest.raises(UnsupportedError, match='"do_sample": True with "num_beams": 4'):
        read(tmp_path, do_sample=True, num_beams=4)


@pytest.mark.parametrize(("name", "value"), [("temperature", -1.0), ("top_p", 2.0), ("top_k", -3)])
def test_values_out_of_range_are_refused(tmp_path: Path, name: str, value: float) -> None:
    """A folder may hold any number."""
    with pytest.raises(
        CheckpointError, match=f'"{name}" in generation_config.json is out of range'
    ):
        read(tmp_path, **{name: value})


@pytest.mark.parametrize("value", [0.0, -1.0, 0.001, 1e12])
def test_repetition_penalty_out_of_range_is_refused(tmp_path: Path, value: float) -> None:
    """As the server refuses it in requests; the limits themselves are kept."""
    for limit in (0.01, 100.0):
        assert read(tmp_path, repetition_penalty=limit).repetition_penalty == limit
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, repetition_penalty=value)
    assert str(caught.value) == (
        f'"repetition_penalty" in generation_config.json is out of range: {value}; it must be at '
        "least 0.01 and at most 100"
    )


@pytest.mark.parametrize("value", [5.5, -6.0, 1e38, math.inf, math.nan])
def test_length_penalty_out_of_range_is_refused(tmp_path: Path, value: float) -> None:
    """As the server refuses it in requests; the limits themselves are kept."""
    for limit in (-5.0, 5.0):
        assert read(tmp_path, length_penalty=limit).length_penalty == limit
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, length_penalty=value)
    assert str(caught.value) == (
        f'"length_penalty" in generation_config.json is out of range: {value}; it must be at '
        "least -5 and at most 5"
    )


def test_bad_words_are_suppressed(tmp_path: Path) -> None:
    """Single tokens with those that are suppressed anyway, and sequences; never the end token."""
    found = read(tmp_path, bad_words_ids=[[5], [6, 7], [2], [8, 9, 2]], suppress_tokens=[4])
    assert found.suppressed_tokens == (4, 5)
    assert found.suppressed_sequences == ((6, 7), (8, 9, 2))
