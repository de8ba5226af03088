"""Disentangled attention: contents attend to distances, and distances to contents.

Each score is the sum of three: content to content, as everywhere; content to position, the query
with the vector of the distance; position to content, the vector of the distance with the key. The
last two reach the fused operator as its bias.

Shapes: B rows, S source length, H heads, D head size, M model width, R vectors of distances.

Source: He et al. 2021, arXiv:2006.03654, section 3; ``DisentangledSelfAttention`` and
``DebertaV2Encoder`` of ``transformers``.
"""

import torch
from torch import Tensor, nn

from seqserve_export.attention import ragged_attention, split_heads
from seqserve_export.encoder_config import ConvolutionConfig, DisentangledConfig, EncoderConfig
from seqserve_export.layers import FeedForward, Residual, activate, make_norm


def distance_buckets(distances: Tensor, config: DisentangledConfig) -> Tensor:
    """Rows of the distance table, from 0 to R-1, of distances (query minus key position).

    Small distances have a row each; with ``num_buckets`` those from half of it on share rows that
    grow logarithmically up to ``max_distance``.

    Source: ``make_log_bucket_position`` of ``transformers``, rounding included.
    """
    span = config.num_distances // 2
    if config.num_buckets is not None:
        half = config.num_buckets // 2
        magnitudes = distances.abs().clamp(min=half - 1)
        growth = torch.log(magnitudes / half)
        growth = growth / torch.log(torch.tensor((config.max_distance - 1) / half))
        far = torch.ceil(growth * (half - 1)) + half
        is_near = magnitudes <= half
        distances = torch.where(is_near, distances, far * torch.sign(distances)).long()
    return (distances + span).clamp(0, 2 * span - 1)


class DistanceEmbedding(nn.Module):
    """The vectors of the distances, shared by all layers."""

    def __init__(self, config: EncoderConfig, disentangled: DisentangledConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(disentangled.num_distances, config.model_size))
        self.norm = make_norm(config) if disentangled.has_distance_norm else None

    def forward(self) -> Tensor:
        """All vectors, [R, M]."""
        normed: Tensor = self.weight if self.norm is None else self.norm(self.weight)
        return normed


class DisentangledAttention(nn.Module):
    """Self-attention whose scores also look at distances."""

    buckets: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        disentangled = config.disentangled
        assert disentangled is not None
        assert config.attention_scale is not None
        inner_size = config.num_heads * config.head_size
        self.config = disentangled
        self.num_heads, self.scale = config.num_heads, config.attention_scale
        self.max_length = config.max_length
        self.query = nn.Linear(config.model_size, inner_size)
        self.key = nn.Linear(config.model_size, inner_size)
        self.value = nn.Linear(config.model_size, inner_size)
        self.output = nn.Linear(inner_size, config.model_size)
        self.distance_key: nn.Linear | None = None
        self.distance_query: nn.Linear | None = None
        if disentangled.has_own_projections:
            if disentangled.has_content_to_position:
                self.distance_key = nn.Linear(config.model_size, inner_size)
            if disentangled.has_position_to_content:
                self.distance_query = nn.Linear(config.model_size, inner_size)
        distances = torch.arange(-config.max_length, config.max_length + 1)
        buckets = distance_buckets(distances, disentangled)
        self.register_buffer("buckets", buckets, persistent=False)

    def forward(self, states: Tensor, lengths: Tensor, distances: Tensor) -> Tensor:
        """Attends within each row.

        Args:
            states: [B, S, M].
            lengths: [B].
            distances: The vectors of all distances, [R, M].

        Returns:
            The new states [B, S, M].
        """
        queries, keys = self.query(states), self.key(states)
        attended, _, _ = ragged_attention(
            queries,
            keys,
            self.value(states),
            lengths,
            num_heads=self.num_heads,
            is_causal=False,
            scale=self.scale,
            bias=self._bias(queries, keys, distances),
        )
        output: Tensor = self.output(attended)
        return output

    def _bias(self, queries: Tensor, keys: Tensor, distances: Tensor) -> Tensor | None:
        """Scores between contents and distances, [B, H, S, S]."""
        num_positions = queries.shape[1]
        # How far the other side stands to the right, from the first column to the last.
        offsets = torch.arange(2 * num_positions, device=queries.device) - (num_positions - 1)
        bias = None
        if self.config.has_content_to_position:
            project = self.key if self.distance_key is None else self.distance_key
            rows = self.buckets[self.max_length - offsets]  # the key is on the other side
            bias = self._scores(queries, project(distances)[rows])  # [B, H, S, S]
        if self.config.has_position_to_content:
            project = self.query if self.distance_query is None else self.distance_query
            rows = self.buckets[self.max_length + offsets]  # the query is on the other side
            scores = self._scores(keys, project(distances)[rows]).transpose(2, 3)
            bias = scores if bias is None else bias + scores
        return bias

    def _scores(self, contents: Tensor, positions: Tensor) -> Tensor:
        """Products of contents [B, S, H*D] with the vectors of their distances to each position.

        ``positions`` [2*S, H*D] has a row for each offset from ``1 - S`` to ``S``. Content i needs
        the S columns from ``S - 1 - i`` on; in rows that are one shorter, they are aligned.
        """
        num_positions = contents.shape[1]
        heads = split_heads(positions[None], self.num_heads)  # [1, H, 2*S, D]
        products = split_heads(contents * self.scale, self.num_heads) @ heads.transpose(2, 3)
        flat = products.flatten(2)[:, :, num_positions - 1 : -1]
        # [B, H, S * (2*S - 1)] -> [B, H, S, 2*S - 1], of which the first S columns.
        aligned: Tensor = flat.unflatten(2, (num_positions, -1))  # type: ignore[no-untyped-call]
        return aligned[..., :num_positions]


class DisentangledLayer(nn.Module):
    """An encoder layer with disentangled attention."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self_attention = DisentangledAttention(config)
        self.self_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, states: Tensor, lengths: Tensor, distances: Tensor) -> Tensor:
        """Maps source states [B, S, M] to [B, S, M], given the vectors of distances [R, M]."""
        residual = self.self_attention_residual
        attended = self.self_attention(residual.enter(states), lengths, distances)
        states = residual.leave(states, attended)
        residual = self.feed_forward_residual
        return residual.leave(states, self.feed_forward(residual.enter(states)))


class EmbeddingConvolution(nn.Module):
    """Adds to the first layer what a convolution makes of the embeddings.

    Source: ``ConvLayer`` of ``transformers`` (``deberta-v2-xlarge``).
    """

    def __init__(self, config: EncoderConfig, convolution: ConvolutionConfig) -> None:
        super().__init__()
        self.kernel_size = convolution.kernel_size
        self.activation = convolution.activation
        # A linear layer over the joined neighbours: onnxruntime's convolution groups its terms by
        # S, so that the padding of the batch would change the last bits of a row.
        self.filter = nn.Linear(convolution.kernel_size * config.model_size, config.model_size)
        self.norm = make_norm(config)

    def forward(self, embedded: Tensor, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps embeddings and states of the first layer, [B, S, M] each, to states [B, S, M]."""
        positions = torch.arange(embedded.shape[1], device=embedded.device)
        is_padding = (positions >= lengths[:, None])[..., None]  # [B, S, 1]
        margin = self.kernel_size // 2
        padded = nn.functional.pad(embedded.masked_fill(is_padding, 0.0), (0, 0, margin, margin))
        neighbours = [
            padded[:, offset : offset + embedded.shape[1]] for offset in range(self.kernel_size)
        ]
        filtered = self.filter(torch.cat(neighbours, dim=2))  # [B, S, K*M] -> [B, S, M]
        total = states + activate(filtered, self.activation)
        normed: Tensor = self.norm(total)
        return normed
