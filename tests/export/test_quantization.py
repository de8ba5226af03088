"""int8 layers: which form they take, how close they come, and that rows are on their own."""

import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from seqserve_export import quantization
from seqserve_export.calibration import Calibration
from seqserve_export.errors import CheckpointError
from seqserve_export.onnx_writer import write_graph
from seqserve_export.quantization import (
    MAX_RELATIVE_ERROR,
    MAX_STATIC_ERROR,
    measure_error,
    quantize,
)
from seqserve_export.quantized_layers import QuantizedLinear, RowwiseLinear
from seqserve_export.smoothing import STRENGTHS, make_factors
from seqserve_export.weight_file import WeightFile

NUM_INPUTS, NUM_OUTPUTS = 64, 48


class OneLayer(nn.Module):
    """A model of one linear layer, as graphs are written from."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.linear = nn.Linear(NUM_INPUTS, NUM_OUTPUTS)
        generator = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            nn.init.normal_(weight, 0.0, 0.1, generator=generator)
        self.eval()

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        return ["states"]

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        return ["outputs"]

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        rows = torch.export.Dim("batch_size")
        return (torch.ones(3, 2, NUM_INPUTS),), ({0: rows},)

    def forward(self, states: Tensor) -> Tensor:
        """Maps [B, 2, K] to [B, 2, N]."""
        outputs: Tensor = self.linear(states)
        return outputs


def make_rows(num_rows: int, seed: int, *, spread: float) -> Tensor:
    """Normal rows whose magnitudes lie between 1 and 10 to the power of ``spread``."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** (spread * torch.rand(num_rows, 1, generator=generator))
    return torch.randn(num_rows, NUM_INPUTS, generator=generator) * sizes


def observe(model: OneLayer, rows: Tensor) -> Calibration:
    """What the layer is chosen on."""
    calibration = Calibration()
    calibration.observe("linear", rows, model.linear(rows))
    return calibration


def test_rows_alike_are_static() -> None:
    """The fastest form is taken where it is close enough."""
    model = OneLayer(1)
    (record,) = quantize(model, observe(model, make_rows(200, 2, spread=0)))
    assert isinstance(model.linear, QuantizedLinear)
    assert not isinstance(model.linear, RowwiseLinear)
    assert (record.name, record.form) == ("linear", "static")
    assert 0 < record.relative_error <= MAX_STATIC_ERROR


def test_inputs_of_different_sizes_are_smoothed() -> None:
    """One step for all would leave most inputs few; factors leave each its steps."""
    model, original = OneLayer(1), OneLayer(1)
    sizes = torch.ones(NUM_INPUTS)
    sizes[::16] = 30.0
    original.linear.weight.data /= sizes
    model.linear.weight.data /= sizes
    (record,) = quantize(model, observe(model, make_rows(200, 2, spread=0) * sizes))
    assert isinstance(model.linear, QuantizedLinear)
    assert not isinstance(model.linear, RowwiseLinear)
    assert (record.name, record.form) == ("linear", "smoothed")
    assert record.relative_error <= MAX_STATIC_ERROR
    rows = make_rows(100, 3, spread=0) * sizes
    expected, actual = original(rows), model(rows)
    assert (actual - expected).norm() <= 2 * MAX_STATIC_ERROR * expected.norm()


def test_factors_leave_what_comes_out_as_it_is() -> None:
    """Inputs are divided by what their weights are multiplied by."""
    model, rows = OneLayer(1), make_rows(50, 2, spread=0)
    scale = float(rows.abs().max()) / 50
    for factors in (None, torch.linspace(0.5, 2.0, NUM_INPUTS)):
        outputs = QuantizedLinear(model.linear, scale, 128, factors)(rows)
        expected = model.linear(rows)
        assert (outputs - expected).norm() <= 0.05 * expected.norm()


def test_inputs_that_samples_leave_small_are_not_blown_up() -> None:
    """On another text they may be as large as most; what is rare must not fill the whole range."""
    model = OneLayer(1)
    sizes = torch.ones(NUM_INPUTS)
    sizes[0], sizes[1] = 100.0, 0.0
    for strength in STRENGTHS:
        factors = make_factors(model.linear, sizes, strength)
        usual = factors[2:] * model.linear.weight[:, 2:].abs().amax(0) ** (1 - strength)
        rare = factors[1] * model.linear.weight[:, 1].abs().amax() ** (1 - strength)
        large = factors[0] * model.linear.weight[:, 0].abs().amax() ** (1 - strength)
        torch.testing.assert_close(usual, rare.expand_as(usual))
        torch.testing.assert_close(large, rare * 100**strength)
    torch.testing.assert_close(factors.mean(), torch.tensor(1.0))


def test_rows_of_different_sizes_are_rowwise() -> None:
    """One scale would leave the small rows no steps; their own leaves them all."""
    model, original = OneLayer(1), OneLayer(1)
    original.linear.bias.data.zero_()
    model.linear.bias.data.zero_()
    (record,) = quantize(model, observe(model, make_rows(200, 2, spread=3)))
    assert isinstance(model.linear, RowwiseLinear)
    assert record.form == "rowwise"
    assert record.relative_error <= MAX_STATIC_ERROR
    rows = make_rows(100, 3, spread=3)
    for expected, actual in zip(original(rows), model(rows), strict=True):
        assert (actual - expected).norm() <= 2 * MAX_STATIC_ERROR * expected.norm()


def test_rows_with_one_large_input_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without factors no form has steps for the others; the layer stays as it was, and is named."""
    monkeypatch.setattr(quantization, "_WORTHWHILE", 0.0)
    model = OneLayer(1)
    rows = make_rows(200, 2, spread=0)
    rows[:, 0] = 3000 * torch.sign(rows[:, 0])
    model.linear.weight.data[:, 0] = 0
    layer = model.linear
    (record,) = quantize(model, observe(model, rows))
    assert model.linear is layer
    assert record.form == "fp32"
    assert record.relative_error > MAX_RELATIVE_ERROR


def test_layers_that_are_not_finite_are_refused() -> None:
    """They are named: no number format is to blame."""
    model = OneLayer(1)
    model.linear.weight.data[0, 0] = math.nan
    calibration = observe(model, make_rows(20, 2, spread=0))
    with pytest.raises(CheckpointError, match="layer linear puts out numbers that are not finite"):
        quantize(model, calibration)


def test_rows_of_zeros_give_the_bias() -> None:
    """Nothing is divided by zero, nor are the smallest numbers there are lost for it."""
    model = OneLayer(1)
    rowwise = RowwiseLinear(model.linear, 1 / 127, 128)
    rows = torch.zeros(2, NUM_INPUTS)
    rows[1] = torch.finfo(torch.float32).tiny / 4
    outputs = rowwise(rows)
    assert torch.equal(outputs, model.linear.bias.expand(2, -1))


def test_error_counts_rows_alone_and_together() -> None:
    """A huge row does not hide that the small ones are lost, nor the other way round."""
    expected = torch.ones(100, 4)
    expected[0] = 1e4
    small_lost, large_lost = expected.clone(), expected.clone()
    small_lost[1:] = 0
    large_lost[0] = 0
    assert measure_error(expected, expected) == 0
    assert measure_error(expected, small_lost) == pytest.approx(0.99, rel=0.01)
    assert measure_error(expected, large_lost) == pytest.approx(1, rel=0.01)
    assert measure_error(torch.zeros(2, 4), torch.zeros(2, 4)) == 0


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("form", [QuantizedLinear, RowwiseLinear])
def test_graph_of_a_row_is_that_row_alone(
    form: type[QuantizedLinear], num_threads: int, tmp_path: Path
) -> None:
    """No bit differs between a row alone and in batches of 2 to 64; torch comes to the same."""
    model = OneLayer(4)
    scale = 1 / 127 if form is RowwiseLinear else 0.05
    model.linear = form(model.linear, scale, 128)  # type: ignore[assignment]
    path = write_graph(model, tmp_path, "layer", WeightFile(tmp_path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rows = make_rows(128, 5, spread=3 if form is RowwiseLinear else 0).view(64, 2, NUM_INPUTS)
    rows[7] = 0
    alone = np.concatenate([session.run(None, {"states": row[None].numpy()})[0] for row in rows])
    for size in (2, 7, 33, 64):
        (together,) = session.run(None, {"states": rows[:size].numpy()})
        assert together.tobytes() == alone[:size].tobytes()
    expected = model(rows).detach().numpy()
    # A last bit that decides between two bytes moves an output by a step.
    assert np.linalg.norm(alone - expected) <= 1e-3 * np.linalg.norm(expected)
    assert np.array_equal(alone[7], expected[7])


def test_samples_are_drawn_from_all_positions() -> None:
    """Of long calibrations every position is as likely to be kept as any other."""
    model, calibration = OneLayer(1), Calibration()
    rows = torch.arange(4096.0)[:, None].expand(-1, NUM_INPUTS)
    for part in rows.view(64, 64, NUM_INPUTS):
        calibration.observe("linear", part[None], model.linear(part))
    kept = calibration.inputs("linear")[:, 0].tolist()
    assert len(kept) == len(set(kept)) == 512
    # Seeded; of other seeds 1 in 10^6 would fail: 5 standard deviations of the mean.
    assert abs(sum(kept) / 512 - 2048) < 5 * 4096 / math.sqrt(12 * 512)
