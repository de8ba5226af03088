"""A recurrent network that reads the source in both directions.

Shapes: B rows, S source length, M model width, N size of the state.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class RaggedGru(nn.Module):
    """Gated recurrent units in both directions, over rows of different lengths.

    Eager torch packs the rows; while exporting it becomes ONNX's operator ``GRU``, which takes
    lengths.

    Source: Cho et al. 2014, arXiv:1406.1078, section 2.3; Schuster and Paliwal 1997.
    """

    def __init__(self, input_size: int, state_size: int) -> None:
        super().__init__()
        self.half_size = state_size // 2
        self.gru = nn.GRU(input_size, self.half_size, batch_first=True, bidirectional=True)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps [B, S, M] to states of both directions side by side, [B, S, N]."""
        if torch.onnx.is_in_onnx_export():
            return self._exported(states, lengths)
        packed = pack_padded_sequence(states, lengths.cpu(), batch_first=True, enforce_sorted=False)
        unpacked, _ = pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=states.shape[1]
        )
        return unpacked

    def _exported(self, states: Tensor, lengths: Tensor) -> Tensor:
        num_rows, length, _ = states.shape
        output = torch.onnx.ops.symbolic(
            "GRU",
            [
                states.transpose(0, 1),  # [B, S, M] -> [S, B, M]
                self._gather("weight_ih"),
                self._gather("weight_hh"),
                torch.cat([self._gather("bias_ih"), self._gather("bias_hh")], dim=1),
                lengths,
            ],
            attrs={
                "direction": "bidirectional",
                "hidden_size": self.half_size,
                # The reset gate is applied behind the product, as in torch.
                "linear_before_reset": 1,
            },
            dtype=states.dtype,
            shape=(length, 2, num_rows, self.half_size),
        )
        return output.permute(2, 0, 1, 3).flatten(2)  # [S, 2, B, N/2] -> [B, S, N]

    def _gather(self, name: str) -> Tensor:
        """Weights of both directions, with the gates in the order of ONNX: [2, 3*N/2, ...]."""
        directions = []
        for suffix in ("", "_reverse"):
            reset, update, new = getattr(self.gru, f"{name}_l0{suffix}").chunk(3)
            directions.append(torch.cat([update, reset, new]))
        return torch.stack(directions)


class RecurrentEncoder(nn.Module):
    """What the recurrent decoder knows of the source: a state for each token, or one for all."""

    def __init__(self, model_size: int, state_size: int, *, is_summarized: bool) -> None:
        super().__init__()
        self.network = RaggedGru(model_size, state_size)
        self.summary = nn.Linear(state_size, state_size) if is_summarized else None

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps embedded sources [B, S, M] to memories [B, S, N].

        A summary is made of the last state of either direction, and stands at every place.
        """
        memories: Tensor = self.network(states, lengths)
        if self.summary is None:
            return memories
        half_size = self.network.half_size
        last = (lengths.long() - 1)[:, None, None].expand(-1, 1, half_size)
        ends = torch.cat(
            [memories[..., :half_size].gather(1, last), memories[:, :1, half_size:]], 2
        )
        summary = torch.tanh(self.summary(ends))  # [B, 1, N]
        return summary.expand(-1, states.shape[1], -1)
