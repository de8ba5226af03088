"""Rows of token ids with their lengths, as tensors of a rectangle say them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.errors import InvalidRequestError
from seqserve.inference_protocol.signature import Input, Tensors

_MAX_INT32 = 2**31 - 1

TOKEN_INPUTS = (
    Input("input_ids", "INT64", (-1, -1), is_required=True),
    Input("attention_mask", "INT64", (-1, -1)),
    Input("source_lengths", "INT64", (-1,)),
)
"""Token ids as the model expects them, special tokens included; nothing is added."""


def read_token_rows(tensors: Tensors) -> list[list[int]]:
    """The tokens of each row, without padding.

    Raises:
        InvalidRequestError: Mask or lengths do not fit, or are both given, or an id is none.
    """
    input_ids = tensors["input_ids"]  # [N, S]
    lengths = read_lengths(tensors)
    is_read = np.arange(input_ids.shape[1]) < lengths[:, None]  # [N, S]
    for row, index in np.argwhere(is_read & ((input_ids < 0) | (input_ids > _MAX_INT32))):
        field = f"input_ids[{row}][{index}]"
        raise InvalidRequestError(
            field,
            f"`{field}` must be an id of the vocabulary, but is {input_ids[row, index]}",
        )
    return [row[:length].tolist() for row, length in zip(input_ids, lengths, strict=True)]


def read_lengths(tensors: Tensors) -> NDArray[Any]:
    """How many tokens each row has, [N]: by its mask, its length, or all.

    Raises:
        InvalidRequestError: Mask or lengths do not fit, or are both given.
    """
    num_rows, width = tensors["input_ids"].shape
    mask, lengths = tensors.get("attention_mask"), tensors.get("source_lengths")
    if mask is not None and lengths is not None:
        raise InvalidRequestError(
            "source_lengths", "`source_lengths` and `attention_mask` say the same; leave one out"
        )
    if lengths is not None:
        check_shape("source_lengths", lengths.shape, (num_rows,))
        for row, length in enumerate(lengths):
            if not 1 <= length <= width:
                field = f"source_lengths[{row}]"
                raise InvalidRequestError(
                    field,
                    f"`{field}` must be at least 1 and at most {width}, the width of `input_ids`, "
                    f"but is {length}",
                )
        return lengths
    if mask is None:
        return np.full(num_rows, width, np.int64)
    check_shape("attention_mask", mask.shape, (num_rows, width))
    kept: NDArray[np.int64] = mask.sum(axis=1)
    wanted = np.arange(width) < kept[:, None]  # [N, S]
    for row in range(num_rows):
        if not kept[row] or not np.array_equal(mask[row], wanted[row]):
            field = f"attention_mask[{row}]"
            raise InvalidRequestError(
                field,
                f"`{field}` must be ones for the tokens, at least one, and zeros behind them: "
                "padding is on the right",
            )
    return kept


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuses tensors that do not fit to the others."""
    if shape != expected:
        raise InvalidRequestError(
            name,
            f"`{name}` must have the shape {list(expected)} to fit to the other inputs, but has "
            f"{list(shape)}",
        )
