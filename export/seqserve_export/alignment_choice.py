"""Chooses the heads of cross-attention that tell which source token a target token came from.

Few heads do, and seldom all those of the last layer. What a target token came from is measured
without looking at attention: one source token after the other is replaced, and what that costs of
the target token's log-probability is how much it came from it. An alignment is as good as the share
it finds of what can be lost. Heads nearly as good as the best one are chosen, and their mean is
taken: what is wrong in one is seldom wrong in the others. No sets of heads are tried, of which some
would be better by chance.

Shapes: S source length, T target length, N replaced sources, V vocabulary.

Source: Li et al. 2019, "On the Word Alignment from Neural Machine Translation" (prediction
difference); that layers differ: Voita et al. 2019, arXiv:1905.09418.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from seqserve.attention_kind import AttentionKind
from seqserve.explanation_record import AlignmentRecord
from seqserve.task_record import TargetMode
from seqserve_export.calibration_text import choose_texts, make_random_sources
from seqserve_export.explain_graph import ExplainGraph
from seqserve_export.reference_search import SearchLimits, search_greedily
from seqserve_export.source import GenerationSource
from seqserve_export.transformer import Transformer
from seqserve_export.verification import SEED, choose_effort, make_row, torch_reference

CRITERION = "share of the prediction difference that alignments find"
_MAX_SOURCES = 64
_MAX_SOURCES_OF_LARGE = 6
_LARGE_MODEL = 50_000_000
_MAX_LENGTH = 24
_NUM_REPLACEMENTS = 2
"""Of each source token, by tokens of other sources."""
_NEARLY = 0.95
"""Of the best head's share: what a head must find to be chosen."""
_BATCH_SIZE = 8

Head = tuple[int, int]
"""Layer and head."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Case:
    """A source and what the model makes of it."""

    weights: Tensor
    """Of all heads, [L, H, T, S], for target tokens and source tokens that are text."""
    losses: Tensor
    """Of each target token's log-probability without each source token, [T, S]; 0 for gains."""


def choose_alignment(source: GenerationSource, graph: ExplainGraph) -> AlignmentRecord | None:
    """Chooses heads; None if no source is long enough to tell.

    Args:
        source: What is exported, with its samples.
        graph: Of the model in the format that is served.
    """
    graph.eval()
    with torch_reference(choose_effort(source.model)):
        cases = list(_make_cases(source, graph))
    num_tokens = sum(len(case.losses) for case in cases)
    if not num_tokens:
        return None
    num_layers, num_heads = cases[0].weights.shape[:2]
    single = {
        (layer, head): _measure(cases, [(layer, head)])
        for layer in range(num_layers)
        for head in range(num_heads)
    }
    least = _NEARLY * max(single.values())
    chosen = tuple(head for head, share in single.items() if share >= least)
    return AlignmentRecord(
        heads=chosen,
        criterion=CRITERION,
        agreement=_measure(cases, chosen),
        last_layer_agreement=_measure(cases, [(num_layers - 1, head) for head in range(num_heads)]),
        count=num_tokens,
    )


def _measure(cases: Sequence[_Case], heads: Sequence[Head]) -> float:
    """The share that the alignment by some heads finds of what can be lost; 1 if nothing can."""
    found = whole = 0.0
    for case in cases:
        places = align(case.weights, heads)
        found += float(case.losses.gather(1, places[:, None]).sum())
        whole += float(case.losses.amax(dim=1).sum())
    return found / whole if whole else 1.0


def align(weights: Tensor, heads: Sequence[Head]) -> Tensor:
    """Where the mean of some heads is largest: [L, H, T, S] -> [T]."""
    return torch.stack([weights[layer, head] for layer, head in heads]).mean(dim=0).argmax(dim=-1)


def _make_cases(source: GenerationSource, graph: ExplainGraph) -> Iterator[_Case]:
    generator = np.random.default_rng(SEED)
    sources = _choose_sources(source)
    frame = set(source.encode(""))
    pool = [token for tokens in sources for token in tokens if token not in frame]
    start, prefix = _begin(source)
    for tokens in sources:
        places = [place for place, token in enumerate(tokens) if token not in frame]
        if len(places) < 2:
            continue
        target = _write(source, graph.model, tokens, start, prefix)
        steps = [
            step
            for step, token in enumerate(target)
            if step >= len(prefix) and token != source.generation.eos_token_id
        ]
        if not steps:
            continue
        decoder_tokens = [start, *target[:-1]]
        differences = _differ(
            graph.model,
            tokens,
            places,
            decoder_tokens,
            target,
            generator.permutation(pool).tolist(),
        )
        weights = attend_cross(graph, tokens, decoder_tokens)[:, :, steps][..., places]
        yield _Case(weights=weights, losses=differences[:, steps].T.clamp(min=0.0))


def _choose_sources(source: GenerationSource) -> list[list[int]]:
    """Sources of the checkpoint or built-in ones, else random tokens; long ones are cut."""
    num_parameters = sum(parameter.numel() for parameter in source.model.parameters())
    most = _MAX_SOURCES if num_parameters < _LARGE_MODEL else _MAX_SOURCES_OF_LARGE
    chosen = choose_texts((), source.samples, source.source_tokenizer, max_texts=most)
    sources = [tokens for text in chosen.texts if (tokens := source.encode(text))]
    if not sources:
        config = source.model.config
        sources, _ = make_random_sources(
            config.source_vocabulary_size, config.max_source_length, most
        )
    return [tokens[:_MAX_LENGTH] for tokens in sources]


def _begin(source: GenerationSource) -> tuple[int, list[int]]:
    """The start token, and what every target begins with."""
    generation, languages = source.generation, source.languages
    start, forced = generation.decoder_start_token_id, generation.forced_bos_token_id
    if languages is not None and languages.target:
        language = languages.target[languages.default_target or min(languages.target)]
        if languages.target_mode is TargetMode.FORCED_BOS:
            forced = language
        elif languages.target_mode is TargetMode.DECODER_START:
            start = language
    return start, [] if forced is None else [forced]


def _write(
    source: GenerationSource, model: Transformer, tokens: list[int], start: int, prefix: list[int]
) -> list[int]:
    """The target that greedy search finds, behind its prefix."""
    rows, lengths = make_row(tokens)
    projected = model.decoder.project_source(model.encode(rows, lengths))

    def next_logits(targets: list[list[int]]) -> Tensor:
        whole, target_lengths = make_row([start, *prefix, *targets[0][1:]])
        return model.score(projected, lengths, whole, target_lengths)[:, -1]

    room = model.config.max_target_length - len(prefix)
    limits = SearchLimits(
        decoder_start_token_id=start,
        eos_token_id=source.generation.eos_token_id,
        max_new_tokens=max(1, min(2 * _MAX_LENGTH, room)),
    )
    return [*prefix, *search_greedily(next_logits, limits).tokens]


def _differ(
    model: Transformer,
    tokens: list[int],
    places: list[int],
    decoder_tokens: list[int],
    target: list[int],
    pool: Sequence[int],
) -> Tensor:
    """How much less likely each target token becomes without each source token: [N, T]."""
    variants = []
    for number, place in enumerate(places):
        for turn in range(_NUM_REPLACEMENTS):
            variant = list(tokens)
            variant[place] = int(pool[(number * _NUM_REPLACEMENTS + turn) % len(pool)])
            variants.append(variant)
    rows = torch.tensor([tokens, *variants])  # [1 + N * replacements, S]
    # A few at a time: vocabularies are wide.
    scores = torch.cat(
        [_score(model, part, decoder_tokens, target) for part in torch.split(rows, _BATCH_SIZE)]
    )
    changed = scores[1:].reshape(len(places), _NUM_REPLACEMENTS, -1).mean(dim=1)
    return scores[0] - changed


def _score(
    model: Transformer, rows: Tensor, decoder_tokens: list[int], target: list[int]
) -> Tensor:
    """Log-probabilities of the target tokens for sources of one length [N, S]: [N, T]."""
    num_rows, length = rows.shape
    logits = model(
        rows,
        torch.full((num_rows,), length, dtype=torch.int32),
        torch.tensor([decoder_tokens]).expand(num_rows, -1),
        torch.full((num_rows,), len(decoder_tokens), dtype=torch.int32),
    )
    index = torch.tensor(target)[None, :, None].expand(num_rows, -1, 1)
    scores: Tensor = logits.gather(2, index)[..., 0] - logits.logsumexp(dim=-1)
    return scores  # [N, T, V] -> [N, T]


def attend_cross(graph: ExplainGraph, tokens: list[int], decoder_tokens: list[int]) -> Tensor:
    """The weights of all heads of cross-attention, [L, H, T, S]."""
    rows, lengths = make_row(tokens)
    heads = [torch.arange(graph.model.config.num_heads)] * sum(graph.layers.values())
    outputs = graph(rows, lengths, torch.tensor([decoder_tokens]), *heads)
    return torch.cat(outputs[-graph.layers[AttentionKind.CROSS] :])
