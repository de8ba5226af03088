"""What was generated, as messages: texts, tokens, scores, why it ended and how long it took."""

from collections.abc import Sequence as Items

from seqserve.generate_options import GenerateOptions
from seqserve.search_state import FinishReason, Hypothesis, TokenLogProbability
from seqserve.sequence import Answer, Generation, Timing
from seqserve.served_model import ServedModel
from seqserve.servicers.requests import Source, to_duration
from seqserve.servicers.stopping import make_stops
from seqserve.v1 import generation_pb2

_FINISH_REASONS = {
    FinishReason.EOS: generation_pb2.FINISH_REASON_EOS,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.TIME: generation_pb2.FINISH_REASON_TIME,
    FinishReason.STOP_SEQUENCE: generation_pb2.FINISH_REASON_STOP_SEQUENCE,
}


def to_result(
    model: ServedModel, answer: Answer, source: Source, options: GenerateOptions
) -> generation_pb2.GenerateResult:
    """What was generated from one input; counts it, too."""
    assert isinstance(answer, Generation)
    model.metrics.observe_answer(
        answer.timing,
        sum(
            len(hypothesis.tokens) - hypothesis.num_prefix_tokens
            for hypothesis in answer.hypotheses
        ),
    )
    return generation_pb2.GenerateResult(
        hypotheses=[_hypothesis(model, hypothesis, options) for hypothesis in answer.hypotheses],
        source_token_count=len(source.tokens),
        truncated_token_count=source.num_truncated,
        timing=to_timing(answer.timing),
        seed=options.seed if options.do_sample else None,
    )


def to_timing(timing: Timing) -> generation_pb2.GenerationTiming:
    """Where the time went, as a message."""
    return generation_pb2.GenerationTiming(
        queue_duration=to_duration(timing.queue_seconds),
        encode_duration=to_duration(timing.encode_seconds),
        decode_duration=to_duration(timing.decode_seconds),
        is_cached=timing.is_cached,
    )


def _hypothesis(
    model: ServedModel, hypothesis: Hypothesis, options: GenerateOptions
) -> generation_pb2.Hypothesis:
    text = model.target_tokenizer.decode(list(hypothesis.tokens))
    stops = make_stops(options, model.target_tokenizer)
    if stops is not None and hypothesis.stop_sequence is not None:
        text = stops.cut(text, hypothesis.stop_sequence)
    return generation_pb2.Hypothesis(
        text=text,
        token_ids=hypothesis.tokens,
        score=hypothesis.score,
        token_log_probabilities=hypothesis.log_probabilities,
        finish_reason=_FINISH_REASONS[hypothesis.finish_reason],
        stop_sequence=hypothesis.stop_sequence or "",
        prefix_token_count=hypothesis.num_prefix_tokens,
        top_log_probabilities=[_top(model, top) for top in hypothesis.tops],
    )


def _top(model: ServedModel, top: Items[TokenLogProbability]) -> generation_pb2.TopLogProbabilities:
    return generation_pb2.TopLogProbabilities(
        values=[
            generation_pb2.TokenLogProbability(
                token_id=one.token,
                piece=model.target_tokenizer.entry(one.token),
                log_probability=one.log_probability,
            )
            for one in top
        ]
    )
