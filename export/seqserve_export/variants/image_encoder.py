"""An encoder of images: convolutions, with self-attention between them.

An image comes as a row of tokens, one for each column of pixels, so that it is served as any
source of tokens is. A token is the number that the column's bits make, the top pixel being the
lowest, plus the number of special tokens.

A convolution is a linear layer over joined neighbours: as ONNX's ``Conv`` its bits would change
with the batch. What lies beyond the end of an image is zero before each, as at the other edges.

Shapes: B rows, S columns, R rows of pixels, C channels, M model width.

Source: LeCun et al. 1989 (convolutions); Bello et al. 2019, arXiv:1904.09925 (self-attention
beside convolutions); Li et al. 2021, arXiv:2109.10282 (a decoder that reads text from images).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqserve_export.layers import EncoderLayer, make_norm
from seqserve_export.positions import sinusoidal_table
from seqserve_export.transformer_config import TransformerConfig

NUM_PIXELS = 12
"""R, the height of an image."""
NUM_SPECIAL_TOKENS = 4
VOCABULARY_SIZE = NUM_SPECIAL_TOKENS + 2**NUM_PIXELS
_CHANNELS = (12, 24)


def to_token(column: list[int]) -> int:
    """The token of a column of pixels, each 0 or 1, the top one first."""
    return NUM_SPECIAL_TOKENS + sum(pixel << row for row, pixel in enumerate(column))


class ColumnPixels(nn.Module):
    """The pixels of the columns that tokens stand for, in the place of an embedding."""

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Maps tokens [B, S] to pixels [B, S, R]; special tokens are columns without ink."""
        numbers = (tokens - NUM_SPECIAL_TOKENS).clamp(min=0)[..., None]
        weights = 2 ** torch.arange(NUM_PIXELS, device=tokens.device)
        return (torch.div(numbers, weights, rounding_mode="floor") % 2).float()


class ImageEncoder(nn.Module):
    """Two convolutions over pixels, self-attention, one over columns, self-attention."""

    table: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        size = config.model_size
        self.first = nn.Linear(9, _CHANNELS[0])
        self.second = nn.Linear(9 * _CHANNELS[0], _CHANNELS[1])
        self.enter = nn.Linear(NUM_PIXELS // 4 * _CHANNELS[1], size)
        # Or places would outweigh what little ink there is.
        self.enter_norm = make_norm(config)
        self.over_columns = nn.Linear(3 * size, size)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))
        self.norm = make_norm(config)
        table = sinusoidal_table(config.max_source_length, size)
        self.register_buffer("table", table, persistent=False)

    def forward(self, pixels: Tensor, lengths: Tensor) -> Tensor:
        """Maps pixels [B, S, R] of images of some lengths [B] to states of columns [B, S, M]."""
        columns = torch.arange(pixels.shape[1], device=pixels.device)
        is_inside = (columns < lengths[:, None]).float()  # [B, S]
        channels = pixels[..., None] * is_inside[..., None, None]  # [B, S, R, 1]
        for convolution in (self.first, self.second):
            channels = functional.relu(convolution(join_neighbours(channels)))
            channels = _halve_rows(channels) * is_inside[..., None, None]
        states: Tensor = self.enter_norm(self.enter(channels.flatten(2))) + self.table[columns]
        for index, layer in enumerate(self.layers):
            if index == 1:
                joined = join_columns(states * is_inside[..., None])
                states = states + functional.relu(self.over_columns(joined))
            states = layer(states, lengths, None)
        normed: Tensor = self.norm(states)
        return normed


def join_neighbours(channels: Tensor) -> Tensor:
    """Joins each pixel with the eight around it: [B, S, R, C] -> [B, S, R, 9*C]."""
    _, num_columns, num_rows, _ = channels.shape
    padded = functional.pad(channels, (0, 0, 1, 1, 1, 1))
    return torch.cat(
        [
            padded[:, column : column + num_columns, row : row + num_rows]
            for column in range(3)
            for row in range(3)
        ],
        dim=-1,
    )


def join_columns(states: Tensor) -> Tensor:
    """Joins each column with the two beside it: [B, S, M] -> [B, S, 3*M]."""
    num_columns = states.shape[1]
    padded = functional.pad(states, (0, 0, 1, 1))
    return torch.cat([padded[:, start : start + num_columns] for start in range(3)], dim=-1)


def _halve_rows(channels: Tensor) -> Tensor:
    """Keeps the larger of two rows of pixels: [B, S, R, C] -> [B, S, R/2, C]."""
    pairs: Tensor = channels.unflatten(2, (-1, 2))  # type: ignore[no-untyped-call]
    return pairs.amax(dim=3)
