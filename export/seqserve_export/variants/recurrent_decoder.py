"""A recurrent network that writes the target, with attention or from one summary of the source.

Its state takes the place of a key: what step t comes to is kept at position t, and the next step
reads it there. So hypotheses are copied, moved and continued as any others are.

Shapes: B rows, S source length, T target length, P cache capacity, M model width, N size of the
state, which is that of the only head.

Source: Bahdanau et al. 2015, arXiv:1409.0473, section 3.1 and appendix A.2; without attention: Cho
et al. 2014, arXiv:1406.1078, section 2.2, and Sutskever et al. 2014, arXiv:1409.3215.
"""

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from seqserve_export.attention import ragged_attention, write
from seqserve_export.attention_recording import attention_weights, current_record
from seqserve_export.transformer import Cache
from seqserve_export.transformer_config import TransformerConfig
from seqserve_export.variants.score import AdditiveScore


class RecurrentDecoder(nn.Module):
    """Gated recurrent units over the target so far and what is known of the source."""

    def __init__(self, config: TransformerConfig, *, is_attentive: bool) -> None:
        super().__init__()
        size, state_size = config.model_size, config.head_size
        self.key = nn.Linear(state_size, state_size) if is_attentive else None
        self.query = nn.Linear(state_size, state_size, bias=False) if is_attentive else None
        self.score = AdditiveScore(1, state_size) if is_attentive else None
        self.start = nn.Linear(state_size, state_size)
        self.cell = GruCell(size + state_size, state_size)
        self.output = nn.Linear(size + 2 * state_size, size)
        self.dropout = nn.Dropout(config.dropout)

    def project_source(self, encoder_states: Tensor) -> Cache:
        """Keys and values [B, 1, S, N] of memories [B, S, N]."""
        values = encoder_states[:, None]
        keys = values if self.key is None else self.key(values)
        return [(keys, values)]

    def forward(
        self,
        states: Tensor,
        positions: Tensor,
        target_lengths: Tensor,
        source: Cache,
        source_lengths: Tensor,
        past: Cache | None = None,
    ) -> tuple[Tensor, Cache, Cache]:
        """Runs over a target, or its newest position, as the decoder of the Transformer does."""
        # What stands at the first place has seen all of the source, coming from its end.
        first = torch.tanh(self.start(source[0][1][:, :, 0]))[:, 0]  # [B, N]
        if past is None:
            return self._run(states, first, source, source_lengths)
        keys, values = past[0]
        place = (target_lengths.long() - 2).clamp(min=0)[:, None, None, None]
        before = keys.gather(2, place.expand(-1, -1, -1, keys.shape[3]))[:, 0, 0]
        before = torch.where(target_lengths[:, None] == 1, first, before)
        context = self._find_context(before, source[0], source_lengths)
        state, output = self._advance(states[:, 0], context, before)
        present = (write(keys, state[:, None, None], target_lengths), values)
        return output[:, None], [present], source

    def _run(
        self, states: Tensor, first: Tensor, source: Cache, source_lengths: Tensor
    ) -> tuple[Tensor, Cache, Cache]:
        """Takes one step after the other over embedded tokens [B, T, M]."""
        if torch.onnx.is_in_onnx_export():
            return self._run_exported(states, first, source, source_lengths)
        state, kept, outputs = first, [], []
        for step in range(states.shape[1]):
            context = self._find_context(state, source[0], source_lengths)
            state, output = self._advance(states[:, step], context, state)
            kept.append(state)
            outputs.append(output)
        keys = torch.stack(kept, dim=1)[:, None]  # [B, 1, T, N]
        return torch.stack(outputs, dim=1), [(keys, keys)], source

    def _run_exported(
        self, states: Tensor, first: Tensor, source: Cache, source_lengths: Tensor
    ) -> tuple[Tensor, Cache, Cache]:
        """The same as one operator, for the graph that explains: targets have any length there."""
        query, score, record = self.query, self.score, current_record()
        assert query is not None
        assert score is not None
        assert record is not None
        keys, values = source[0]
        places = torch.arange(keys.shape[2])
        mask = (places < source_lengths[:, None])[:, None, None]  # [B, 1, 1, S]
        no_query = torch.zeros_like(keys[:, :, :1])

        def step(state: Tensor, token: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            scores = score(query(state)[:, None, None], keys)
            weights = attention_weights(no_query, keys, mask, None, scores)  # [B, 1, 1, S]
            state, output = self._advance(token, (weights @ values)[:, 0, 0], state)
            return state, (state.clone(), output, weights)

        _, (kept, outputs, weights) = scan(step, first, states.transpose(0, 1))
        record.append(weights[:, :, :, 0].permute(1, 2, 0, 3))  # [T, B, 1, S] -> [B, 1, T, S]
        present = kept.transpose(0, 1)[:, None]  # [T, B, N] -> [B, 1, T, N]
        return outputs.transpose(0, 1), [(present, present)], source

    def _find_context(
        self, state: Tensor, source: tuple[Tensor, Tensor], source_lengths: Tensor
    ) -> Tensor:
        """What the state [B, N] is told of the source: [B, N]."""
        if self.query is None or self.score is None:
            return source[1][:, 0, 0]  # the summary stands at every place
        query = self.query(state)[:, None]  # [B, 1, N]
        attended, _, _ = ragged_attention(
            torch.zeros_like(query),
            query[:, :0],
            query[:, :0],
            source_lengths,
            num_heads=1,
            is_causal=False,
            past=source,
            bias=self.score(query[:, None], source[0]),
        )
        return attended[:, 0]

    def _advance(self, token: Tensor, context: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """From the embedded token [B, M] to the state [B, N] behind it and the output [B, M]."""
        state = self.cell(torch.cat([token, context], dim=-1), state)
        output = torch.tanh(self.output(torch.cat([token, context, state], dim=-1)))
        return state, self.dropout(output)


class GruCell(nn.Module):
    """One step of gated recurrent units.

    Source: Cho et al. 2014, arXiv:1406.1078, eq. 5 to 8, with the reset gate behind the product.
    """

    def __init__(self, input_size: int, state_size: int) -> None:
        super().__init__()
        self.input = nn.Linear(input_size, 3 * state_size)
        self.state = nn.Linear(state_size, 3 * state_size)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """From inputs [B, I] and the state before [B, N] to the state [B, N]."""
        of_input, of_state = self.input(inputs).chunk(3, -1), self.state(state).chunk(3, -1)
        reset = torch.sigmoid(of_input[0] + of_state[0])
        update = torch.sigmoid(of_input[1] + of_state[1])
        new = torch.tanh(of_input[2] + reset * of_state[2])
        kept: Tensor = (1 - update) * new + update * state
        return kept
