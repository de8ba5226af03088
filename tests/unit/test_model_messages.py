"""Models and tokens, from arguments to requests and from replies to results."""

from seqserve.client import EmbeddingSettings, GenerationSettings, ModelInfo, SparseSettings, Token
from seqserve.client.model_messages import detokenize_request, to_models, to_tokens
from seqserve.v1 import model_pb2


def test_detokenize_request_keeps_rows() -> None:
    """One sequence a row, empty ones too."""
    request = detokenize_request([[4, 5], [], (6,)], "m", "2")
    assert [list(row.token_ids) for row in request.sequences] == [[4, 5], [], [6]]
    assert (request.model_name, request.model_version) == ("m", "2")


def test_tokens_keep_offsets_and_marks() -> None:
    """A list a text, empty for a text without tokens."""
    token = model_pb2.Token(id=4, text="a", start_offset=1, end_offset=2, is_special=True)
    response = model_pb2.TokenizeResponse(
        tokenizations=[model_pb2.Tokenization(tokens=[token]), model_pb2.Tokenization()]
    )
    assert to_tokens(response) == [[Token(4, "a", 1, 2, True)], []]


def test_model_has_the_settings_of_its_task() -> None:
    """Settings of a task the model lacks are None; zeros of one it has are zeros."""
    generating = model_pb2.Model(
        name="m",
        version="2",
        tasks=[model_pb2.TASK_GENERATE],
        family="transformer",
        dtype="fp32",
        source="s",
        max_source_length=9,
        source_vocabulary_size=30,
        max_inputs_per_request=8,
        is_batch_invariant=True,
        generation=model_pb2.GenerationSettings(
            max_new_tokens=5,
            num_beams=2,
            max_target_length=6,
            max_num_beams=4,
            forced_eos_token_id=0,
            do_sample=True,
            top_k=5,
            top_p=0.5,
            suppressed_sequences=[model_pb2.TokenSequence(token_ids=[3, 4])],
            target_languages=["de", "en"],
        ),
    )
    embedding = model_pb2.Model(
        tasks=[model_pb2.TASK_EMBED],
        embedding=model_pb2.EmbeddingSettings(embedding_size=3, pooling="mean"),
    )
    first, second = to_models([generating, embedding])
    assert first == ModelInfo(
        name="m",
        version="2",
        tasks=("generate",),
        family="transformer",
        dtype="fp32",
        source="s",
        max_source_length=9,
        source_vocabulary_size=30,
        max_inputs_per_request=8,
        is_batch_invariant=True,
        generation=GenerationSettings(
            max_new_tokens=5,
            num_beams=2,
            length_penalty=0.0,
            early_stopping=False,
            min_new_tokens=0,
            no_repeat_ngram_size=0,
            repetition_penalty=0.0,
            forced_bos_token_id=None,
            forced_eos_token_id=0,
            suppressed_token_ids=(),
            do_sample=True,
            temperature=0.0,
            top_k=5,
            top_p=0.5,
            suppressed_sequences=((3, 4),),
            max_target_length=6,
            max_num_beams=4,
            target_vocabulary_size=0,
            source_languages=(),
            target_languages=("de", "en"),
            default_source_language="",
            default_target_language="",
        ),
        embedding=None,
    )
    assert (second.tasks, second.generation) == (("embed",), None)
    assert second.embedding == EmbeddingSettings(embedding_size=3, pooling="mean", normalize=False)


def test_sparse_models_say_so() -> None:
    """With a limit of weights, or without one."""
    messages = [
        model_pb2.SparseSettings(activation="relu"),
        model_pb2.SparseSettings(activation="log1p_relu", max_active_dims=8),
    ]
    settings = [
        info.embedding.sparse
        for info in to_models(
            model_pb2.Model(embedding=model_pb2.EmbeddingSettings(sparse=one)) for one in messages
        )
        if info.embedding is not None
    ]
    assert settings == [
        SparseSettings(activation="relu"),
        SparseSettings(activation="log1p_relu", max_active_dims=8),
    ]
