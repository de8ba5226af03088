"""What the server with canned answers has to say."""

from __future__ import annotations

from google.protobuf import duration_pb2

from seqserve.v1 import attention_pb2, encoding_pb2, generation_pb2, model_pb2

TIMING = encoding_pb2.EncodingTiming(
    queue_duration=duration_pb2.Duration(nanos=1_000_000),
    encode_duration=duration_pb2.Duration(nanos=2_000_000),
)

MODELS = [
    model_pb2.Model(
        name="fake",
        version="1",
        tasks=[model_pb2.TASK_GENERATE],
        family="transformer",
        dtype="fp32",
        max_source_length=9,
        source_vocabulary_size=30,
        max_inputs_per_request=256,
        is_batch_invariant=True,
        source="fake-source",
        generation=model_pb2.GenerationSettings(
            max_new_tokens=8, num_beams=1, max_target_length=9, max_num_beams=4
        ),
        attention=model_pb2.AttentionSettings(
            encoder_layer_count=1, decoder_layer_count=1, head_count=2
        ),
    ),
    model_pb2.Model(
        name="vectors",
        version="2",
        tasks=[model_pb2.TASK_EMBED],
        embedding=model_pb2.EmbeddingSettings(embedding_size=2, pooling="mean", normalize=True),
    ),
]


def make_result(
    text: str, options: generation_pb2.GenerateOptions
) -> generation_pb2.GenerateResult:
    """Two hypotheses, the first with everything, the second bare; drawn with seed 99 if any."""
    result = generation_pb2.GenerateResult(
        hypotheses=[
            generation_pb2.Hypothesis(
                text=text.upper(),
                token_ids=[5, 2],
                score=-0.5,
                token_log_probabilities=[-0.25, -0.25],
                finish_reason=generation_pb2.FINISH_REASON_EOS,
            ),
            generation_pb2.Hypothesis(
                text=text, token_ids=[6], finish_reason=generation_pb2.FINISH_REASON_LENGTH
            ),
        ],
        source_token_count=len(text),
        truncated_token_count=3 if text == "long" else 0,
        seed=99 if options.do_sample else None,
    )
    result.timing.queue_duration.FromMilliseconds(1)
    result.timing.encode_duration.FromMilliseconds(2)
    result.timing.decode_duration.FromMilliseconds(3)
    return result


def align(result: generation_pb2.GenerateResult, text: str) -> None:
    """Lets each word of the first hypothesis, a token, come from the last word of a text."""
    ends = [place for place, letter in enumerate(f"{text} ") if letter == " "]
    starts = [0, *(end + 1 for end in ends[:-1])]
    tokens = [
        model_pb2.Token(id=5, text=text[start:end], start_offset=start, end_offset=end)
        for start, end in zip(starts, ends, strict=True)
    ]
    end = model_pb2.Token(id=2, text="</s>", is_special=True)
    num_words = len(tokens)
    result.hypotheses[0].alignment.CopyFrom(
        generation_pb2.Alignment(
            source_tokens=[*tokens, end],
            target_tokens=[*tokens, end],
            source_indices=[*[num_words - 1] * num_words, -1],
            weights=([0.0] * (num_words - 1) + [0.75, 0.25]) * (num_words + 1),
        )
    )


def make_attention(request: attention_pb2.AttendRequest) -> attention_pb2.AttendResponse:
    """Weights of a text in capitals, or of a target, to the text; of each kind that is asked for.

    If none is, cross-attention, or of a pair that of the encoder.
    """
    text = request.input.text
    tokens = [
        model_pb2.Token(id=ord(letter), text=letter, start_offset=place, end_offset=place + 1)
        for place, letter in enumerate(text)
    ]
    target = request.target.text or text.upper()
    written = [model_pb2.Token(id=ord(letter), text=letter) for letter in target]
    rest = 0.25 / (len(text) - 1)
    kind_of_all = (
        attention_pb2.ATTENTION_KIND_ENCODER_SELF
        if request.input.text_pair
        else attention_pb2.ATTENTION_KIND_CROSS
    )
    return attention_pb2.AttendResponse(
        attentions=[
            attention_pb2.Attention(
                kind=kind,
                layers=[0],
                heads=[0, 1],
                shape=[1, 1, len(target), len(text)],
                weights=[
                    0.75 if row == column else rest
                    for row in range(len(target))
                    for column in range(len(text))
                ],
            )
            for kind in request.kinds or [kind_of_all]
        ],
        source_tokens=tokens,
        target_tokens=written,
        decoder_input_tokens=written,
        source_text=text,
        target_text=target,
        truncated_token_count=3 if request.truncate else 0,
    )


def make_scoring(one: generation_pb2.ScoreTargetsInput) -> generation_pb2.ScoreTargetsResult:
    """A score for each target of an input."""
    result = generation_pb2.ScoreTargetsResult(
        scores=[
            generation_pb2.TargetScore(
                tokens=[
                    generation_pb2.ScoredToken(id=ord(letter), text=letter, log_probability=-1.0)
                    for letter in target.text
                ],
                total_log_probability=-len(target.text),
                mean_log_probability=-1.0,
                token_count=len(target.text),
            )
            for target in one.targets
        ],
        source_token_count=len(one.text),
        truncated_token_count=3 if one.text == "long" else 0,
    )
    result.timing.queue_duration.FromMilliseconds(1)
    result.timing.encode_duration.FromMilliseconds(2)
    result.timing.decode_duration.FromMilliseconds(3)
    return result
