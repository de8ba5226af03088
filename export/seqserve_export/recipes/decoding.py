"""Decoding in torch, to measure a model while and after it is trained.

The served model decodes in onnxruntime; this is the plain version, in whole batches.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from seqserve_export.checkpoint import GenerationConfig
from seqserve_export.recipes.pronunciation_batch import pad
from seqserve_export.transformer import Cache, Transformer

# More rows at once are slower: their caches no longer fit into the processor's.
_ROWS_PER_BATCH = 256
_CACHE_BLOCK = 8


def decode_all(
    model: Transformer,
    sources: Sequence[list[int]],
    generation: GenerationConfig,
    *,
    num_beams: int,
) -> list[list[int]]:
    """Decodes the best target of each source; with one beam this is greedy decoding.

    Returns:
        The tokens of each target, without start and end.
    """
    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    targets: list[list[int]] = [[] for _ in sources]
    num_rows = max(1, _ROWS_PER_BATCH // num_beams)
    for start in range(0, len(order), num_rows):
        indices = order[start : start + num_rows]
        decoded = decode_batch(
            model, [sources[index] for index in indices], generation, num_beams=num_beams
        )
        for index, target in zip(indices, decoded, strict=True):
            targets[index] = target
    return targets


@torch.inference_mode()
def decode_batch(
    model: Transformer,
    sources: Sequence[list[int]],
    generation: GenerationConfig,
    *,
    num_beams: int,
) -> list[list[int]]:
    """Decodes one batch by beam search.

    A finished hypothesis stays in the beam, unchanged, until all of its row are finished. The best
    of a row is the one with the highest ``sum_logprobs / length ** length_penalty``.
    """
    device = model.head.weight.device
    num_sources, end, filler = len(sources), generation.eos_token_id, generation.pad_token_id
    num_rows = num_sources * num_beams  # B*K
    source, source_lengths = _read_sources(model, sources, num_beams)
    past = _make_empty_cache(model, num_rows)
    # Hypotheses of a row start equal, so all but the first are barred from the first step.
    scores = torch.full((num_sources, num_beams), -torch.inf, device=device)
    scores[:, 0] = 0.0
    tokens = torch.full((num_rows,), generation.decoder_start_token_id, device=device)
    is_finished = torch.zeros(num_rows, dtype=torch.bool, device=device)
    targets = torch.empty((num_rows, 0), dtype=torch.long, device=device)
    first_rows = torch.arange(num_sources, device=device)[:, None] * num_beams  # [B, 1]
    for step in range(generation.max_new_tokens):
        if step == past[0][0].shape[2]:
            past = _grow(past)
        past_lengths = torch.full((num_rows,), step, dtype=torch.int32, device=device)
        logits, past, _ = model.decode(tokens, past_lengths, source, source_lengths, past)
        log_probs = logits.float().log_softmax(-1)
        log_probs[is_finished] = -torch.inf
        log_probs[is_finished, filler] = 0.0
        totals = scores.flatten()[:, None] + log_probs  # [B*K, V]
        candidates = totals.view(num_sources, -1)  # [B*K, V] -> [B, K*V]
        scores, picks = candidates.topk(num_beams)
        rows = (first_rows + picks // log_probs.shape[1]).flatten()  # [B, K] -> [B*K]
        tokens = (picks % log_probs.shape[1]).flatten()
        targets = torch.cat([targets[rows], tokens[:, None]], dim=1)
        is_finished = is_finished[rows] | (tokens == end)
        if is_finished.all():
            break
        if num_beams > 1:
            past = [(keys[rows], values[rows]) for keys, values in past]
    lengths = (targets != filler).sum(1).view(num_sources, num_beams)
    best = (scores / lengths**generation.length_penalty).argmax(1, keepdim=True)
    chosen = targets[(first_rows + best).flatten()].tolist()
    return [[token for token in target if token not in (end, filler)] for target in chosen]


def _read_sources(
    model: Transformer, sources: Sequence[list[int]], num_beams: int
) -> tuple[Cache, Tensor]:
    """Encodes the sources, each repeated for its hypotheses."""
    device = model.head.weight.device
    tokens, lengths = (tensor.to(device) for tensor in pad(sources))
    projected = model.decoder.project_source(model.encode(tokens, lengths))
    repeated = [
        (keys.repeat_interleave(num_beams, 0), values.repeat_interleave(num_beams, 0))
        for keys, values in projected
    ]
    return repeated, lengths.repeat_interleave(num_beams, 0)


def _make_empty_cache(model: Transformer, num_rows: int) -> Cache:
    config = model.config
    shape = (num_rows, config.num_heads, _CACHE_BLOCK, config.head_size)
    empty = torch.zeros(shape, device=model.head.weight.device)
    return [(empty, empty) for _ in range(config.num_decoder_layers)]


def _grow(past: Cache) -> Cache:
    """Makes room for more positions; a cache of full size from the start would be copied a lot."""
    room = (0, 0, 0, _CACHE_BLOCK)
    return [(functional.pad(keys, room), functional.pad(values, room)) for keys, values in past]
