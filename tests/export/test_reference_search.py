"""The reference search finds what transformers finds."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration

from seqserve_export.reference_search import SearchLimits, search_beams, search_greedily

START, END = 2, 3
LIMITS = SearchLimits(decoder_start_token_id=START, eos_token_id=END, max_new_tokens=12)


def _make_bart(seed: int) -> Any:
    """A random BART whose targets end at different lengths."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = BartForConditionalGeneration(
            BartConfig(
                vocab_size=30,
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                max_position_embeddings=32,
                init_std=0.6,
                pad_token_id=1,
                bos_token_id=0,
                eos_token_id=END,
                decoder_start_token_id=START,
                forced_eos_token_id=None,
            )
        )
        torch.nn.init.normal_(model.final_logits_bias, 0.0, 0.3)
        model.final_logits_bias[0, END] += 1.0
    model.eval()
    return model


class BartTargets:
    """The logits that follow targets of one source, from a BART without cache."""

    def __init__(self, model: Any, source: Tensor) -> None:
        self._model = model
        self._source = source

    def __call__(self, targets: list[list[int]]) -> Tensor:
        """Returns [N, V]."""
        source = self._source.expand(len(targets), -1)
        outputs = self._model(
            input_ids=source, decoder_input_ids=torch.tensor(targets), use_cache=False
        )
        logits: Tensor = outputs.logits[:, -1]
        return logits


def _generate(
    model: Any, source: Tensor, **options: Any
) -> tuple[list[tuple[int, ...]], list[float]]:
    found = model.generate(
        source,
        max_new_tokens=LIMITS.max_new_tokens,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    targets = []
    for row in found.sequences[:, 1:].tolist():
        end = row.index(END) + 1 if END in row else len(row)
        targets.append(tuple(row[:end]))
    scores = [] if options["num_beams"] == 1 else found.sequences_scores.tolist()
    return targets, scores


@pytest.mark.parametrize("is_stopped_early", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("num_beams", [2, 4, 5])
def test_beams_equal_transformers(
    num_beams: int, length_penalty: float, is_stopped_early: bool
) -> None:
    """Tokens and scores of all K hypotheses equal those of ``generate``."""
    num_ended = 0
    for seed in range(10):
        model = _make_bart(seed)
        source = torch.randint(
            4, 30, (1, 3 + seed % 4), generator=torch.Generator().manual_seed(seed)
        )
        with torch.inference_mode():
            targets, scores = _generate(
                model,
                source,
                num_beams=num_beams,
                num_return_sequences=num_beams,
                length_penalty=length_penalty,
                early_stopping=is_stopped_early,
            )
            hypotheses = search_beams(
                BartTargets(model, source),
                LIMITS,
                num_beams=num_beams,
                length_penalty=length_penalty,
                is_stopped_early=is_stopped_early,
            )
        assert [hypothesis.tokens for hypothesis in hypotheses] == targets
        assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx(scores, abs=1e-4)
        num_ended += sum(END in target for target in targets)
    assert num_ended > 0, "no target ended before the limit: the test shows too little"


def test_greedy_equals_transformers() -> None:
    """Greedy tokens equal those of ``generate`` with one beam."""
    for seed in range(20):
        model = _make_bart(seed)
        source = torch.randint(4, 30, (1, 5), generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            targets, _ = _generate(model, source, num_beams=1)
            hypothesis = search_greedily(BartTargets(model, source), LIMITS)
        assert [hypothesis.tokens] == targets


def test_too_many_beams_are_refused() -> None:
    """Twice the beams must fit into the vocabulary."""
    with pytest.raises(ValueError, match="`num_beams` must be at most half of the vocabulary of 6"):
        search_beams(lambda targets: torch.zeros(len(targets), 6), LIMITS, num_beams=4)
