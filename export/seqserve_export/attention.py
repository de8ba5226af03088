"""Ragged multi-head attention: one function, eager in torch, one fused operator in ONNX.

Every attention of the model is a call of :func:`ragged_attention`, with a different choice of
where keys come from:

=====================  ===========================  =====================  ============
who attends to what    ``keys``, ``values`` (new)   ``past`` (cached)      ``is_causal``
=====================  ===========================  =====================  ============
encoder self           all source positions         none                   no
decoder self, full     all target positions         none                   yes
decoder self, cached   the one new position         earlier positions      yes
cross                  none (length 0)              projected source       no
=====================  ===========================  =====================  ============

"Ragged" means that each row of the batch has its own number of valid keys, ``lengths``; what lies
beyond is never read, so that rows of different lengths share a batch without seeing padding.

While exporting, the call becomes ``com.microsoft.GroupQueryAttention`` (``kv_num_heads`` equal to
``num_heads``, that is plain multi-head attention). onnxruntime's CPU kernel skips invalid keys and,
when past and present are bound to one buffer, writes the new keys and values in place. Only while
weights are recorded (:mod:`seqserve_export.attention_recording`) it is written out, there as well.

Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2; operator: onnxruntime
``docs/ContribOperators.md``, ``GroupQueryAttention``.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from seqserve_export.attention_recording import attention_weights, current_record


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Splits the model dimension into heads: [B, T, H*D] -> [B, H, T, D]."""
    split: Tensor = states.unflatten(-1, (num_heads, -1))  # type: ignore[no-untyped-call]
    return split.transpose(1, 2)


def merge_heads(states: Tensor) -> Tensor:
    """Joins the heads again: [B, H, T, D] -> [B, T, H*D]."""
    return states.transpose(1, 2).flatten(2)


def ragged_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    *,
    num_heads: int,
    is_causal: bool,
    scale: float | None = None,
    past: tuple[Tensor, Tensor] | None = None,
    bias: Tensor | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    cache_scales: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attends from each query to the valid keys of its own row.

    Args:
        queries: [B, T, H*D].
        keys: New keys [B, T', H*D]; T' is T, or 0 when all keys are in ``past``.
        values: New values, shaped as ``keys``.
        lengths: Valid keys of each row once the new ones are written, [B], int32, at least 1.
        num_heads: H. The head size D must be a multiple of 8 for the exported operator.
        is_causal: A query sees only keys at or before its own position; the last query stands at
            ``lengths - 1``.
        scale: Factor on the scores; None means ``1 / sqrt(D)``.
        past: Cached keys and values, each [B, H, P, D]; P is the capacity, not the valid length.
            New keys are written at ``lengths - T'``.
        bias: Added to the scores, [B or 1, H or 1, T, P or T'].
        rotary: Cosines and sines by which queries and keys are rotated, [P, D/2] each, a row for
            each position from 0; not together with ``past``. D must then be a multiple of 16.
        dtype: Number format of the computation, and of ``past`` and all keys and values.
        cache_scales: Size of one step of keys and of values, [H, D] each. With them ``past`` and
            all keys and values are signed bytes, see :func:`to_bytes`.

    Returns:
        The attended values [B, T, H*D] in the format of ``queries``, then all keys and all values
        [B, H, P or T', D] in the format of ``past``.
    """
    states_dtype = queries.dtype
    queries, keys, values = queries.to(dtype), keys.to(dtype), values.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    record = current_record()
    if torch.onnx.is_in_onnx_export() and record is None:
        attended, all_keys, all_values = _exported(
            queries,
            keys,
            values,
            lengths,
            num_heads,
            is_causal,
            scale,
            past,
            bias,
            rotary,
            cache_scales,
        )
        return attended.to(states_dtype), all_keys, all_values
    all_queries = split_heads(queries, num_heads)
    all_keys, all_values = split_heads(keys, num_heads), split_heads(values, num_heads)
    if rotary is not None:
        assert past is None
        all_queries, all_keys = _rotate(all_queries, rotary), _rotate(all_keys, rotary)
    if cache_scales is not None:
        all_keys = to_bytes(all_keys, cache_scales[0])
        all_values = to_bytes(all_values, cache_scales[1])
    if past is not None:
        all_keys = write(past[0], all_keys, lengths)
        all_values = write(past[1], all_values, lengths)
    seen_keys, seen_values = all_keys, all_values
    if cache_scales is not None:
        seen_keys = all_keys.to(dtype) * cache_scales[0][:, None]
        seen_values = all_values.to(dtype) * cache_scales[1][:, None]
    mask = _visible(lengths, queries.shape[1], all_keys.shape[2], is_causal)
    if record is not None:
        weights = attention_weights(all_queries, seen_keys, mask, scale, bias)
        record.append(weights)
        attended = weights.to(dtype) @ seen_values
    else:
        if bias is not None:
            mask = bias.masked_fill(~mask, -math.inf)  # [B, H, T, P]
        attended = functional.scaled_dot_product_attention(
            all_queries, seen_keys, seen_values, attn_mask=mask, scale=scale
        )
    return merge_heads(attended).to(states_dtype), all_keys, all_values


def to_bytes(heads: Tensor, scales: Tensor) -> Tensor:
    """Quantizes keys or values [B, H, T, D] to signed bytes, a step being ``scales`` [H, D]."""
    steps = heads * (1 / scales[:, None])
    if torch.onnx.is_in_onnx_export():
        # With the scales as an axis the operator would take one number at a time.
        return torch.onnx.ops.symbolic(
            "QuantizeLinear",
            [steps, torch.tensor(1.0), torch.tensor(0, dtype=torch.int8)],
            dtype=torch.int8,
            shape=steps.shape,
        )
    return torch.round(steps).clamp(-128, 127).to(torch.int8)


def _visible(lengths: Tensor, num_queries: int, num_keys: int, is_causal: bool) -> Tensor:
    """Which keys each query may see: [B, 1, T or 1, P], bool."""
    key_positions = torch.arange(num_keys, device=lengths.device)
    if not is_causal:
        return (key_positions < lengths[:, None])[:, None, None]
    query_positions = torch.arange(num_queries, device=lengths.device) - num_queries
    last_visible = lengths[:, None] + query_positions  # [B, T]
    return (key_positions <= last_visible[..., None])[:, None]


def _rotate(heads: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates [B, H, T, D]: dimension d of the first half together with d of the second.

    Source: Su et al. 2021, arXiv:2104.09864, section 3.4, in the halves layout of GPT-NeoX and of
    the operator's ``rotary_interleaved = 0``.
    """
    num_positions = heads.shape[2]
    cosines, sines = rotary[0][:num_positions], rotary[1][:num_positions]  # [T, D/2]
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def write(past: Tensor, new: Tensor, lengths: Tensor) -> Tensor:
    """Writes ``new`` [B, H, T', D] into a copy of ``past`` so that each row ends at its length."""
    num_new = new.shape[2]
    if num_new == 0:
        return past
    positions = lengths[:, None].long() - num_new + torch.arange(num_new, device=past.device)
    index = positions[:, None, :, None].expand_as(new)  # [B, H, T', D]
    return past.scatter(2, index, new)


def _exported(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    num_heads: int,
    is_causal: bool,
    scale: float | None,
    past: tuple[Tensor, Tensor] | None,
    bias: Tensor | None,
    rotary: tuple[Tensor, Tensor] | None,
    cache_scales: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    batch_size, _, width = queries.shape
    num_keys = keys.shape[1] if past is None else past[0].shape[2]
    present_shape = (batch_size, num_heads, num_keys, width // num_heads)
    inputs: list[Tensor | None] = [
        queries,
        keys,
        values,
        past[0] if past else None,
        past[1] if past else None,
        (lengths - 1).to(torch.int32),
        # The capacity rather than the longest row: with one query per row onnxruntime then always
        # takes the token-generation path, and a bias keeps one shape for all steps.
        torch.scalar_tensor(num_keys, dtype=torch.int32),
    ]
    if bias is not None or rotary is not None or cache_scales is not None:
        inputs += [*(rotary or (None, None)), None, bias]
    attributes: dict[str, Any] = {"num_heads": num_heads, "kv_num_heads": num_heads}
    if rotary is not None:
        attributes["do_rotary"] = 1
    if not is_causal:
        attributes["causal"] = 0
    if scale is not None:
        attributes["scale"] = scale
    cache_dtype = queries.dtype
    if cache_scales is not None:
        inputs += [None, *cache_scales]
        attributes |= {
            "kv_cache_bit_width": 8,
            "k_quant_type": "PER_CHANNEL",
            "v_quant_type": "PER_CHANNEL",
        }
        cache_dtype = torch.int8
    outputs = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        inputs,
        attrs=attributes,
        dtypes=(queries.dtype, cache_dtype, cache_dtype),
        shapes=(queries.shape, present_shape, present_shape),
        version=1,
    )
    attended, all_keys, all_values = outputs
    return attended, all_keys, all_values
