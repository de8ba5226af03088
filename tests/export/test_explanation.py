"""The command and the explain graph: there by default, with the weights of the others."""

from pathlib import Path

import onnx
import torch
from click.testing import CliRunner

from seqserve.manifest import read_manifest
from seqserve_export.__main__ import main
from tiny_checkpoint import make_tiny_checkpoint


def find_weights(path: Path) -> set[tuple[str, ...]]:
    """File, place and length of all that a graph reads from outside."""
    return {
        tuple(sorted(f"{part.key} {part.value}" for part in tensor.external_data))
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if tensor.external_data
    }


def test_explain_graph_shares_the_weights_of_the_others(tmp_path: Path) -> None:
    """In int8, too: the folder grows by the nodes alone."""
    torch.set_num_threads(1)
    source = make_tiny_checkpoint(tmp_path / "source", 5, num_decoder_layers=1)
    arguments = [str(source), str(tmp_path), "--name", "m", "--dtype", "int8"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "m" / "1"
    manifest = read_manifest(folder)
    record = manifest.explanation
    assert record is not None
    assert (record.num_encoder_layers, record.num_decoder_layers, record.num_heads) == (2, 1, 2)
    assert record.alignment is not None
    assert manifest.files[record.graph].size_bytes < 100_000
    encode, decode, explain = (
        find_weights(folder / f"{name}.onnx") for name in ("encode", "decode", "explain")
    )
    assert explain
    assert explain <= encode | decode
    (check,) = (one for one in manifest.verification if one.check.startswith("attention"))
    assert check.max_abs_difference < 1e-4
