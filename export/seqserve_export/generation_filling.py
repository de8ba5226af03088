"""Fills the folder of an encoder-decoder model: its graphs, one file of weights, tokenizers."""

from seqserve.manifest import VerificationRecord
from seqserve.task_record import GenerationRecord
from seqserve_export.calibration import calibrate
from seqserve_export.calibration_text import choose_texts, make_random_sources
from seqserve_export.device_graphs import BestTokensGraph, MoveRowsGraph
from seqserve_export.errors import UnsupportedError
from seqserve_export.explain_graph import ExplainGraph
from seqserve_export.explanation_filling import fill_explanation
from seqserve_export.filling import SOURCE_TOKENIZER_FILE, TARGET_TOKENIZER_FILE, Filling, Order
from seqserve_export.generation_verification import GenerationVerifier
from seqserve_export.graphs import DecodeGraph, EncodeGraph
from seqserve_export.mapping_verification import compare_with_transformers
from seqserve_export.move_verification import compare_best_tokens, compare_moves
from seqserve_export.onnx_writer import write_graph
from seqserve_export.phase import Phase
from seqserve_export.precision import Reduction, copy_in_precision
from seqserve_export.rank_graph import write_rank_graph
from seqserve_export.rank_verification import compare_rankings
from seqserve_export.source import GenerationSource
from seqserve_export.transformer import Transformer
from seqserve_export.variants.variant_model import VariantModel
from seqserve_export.verification import Verification
from seqserve_export.weight_file import WeightFile


def fill_generation(source: GenerationSource, order: Order) -> Filling:
    """Writes and verifies everything but the manifest.

    Raises:
        VerificationError: Something differs that must not.
        UnsupportedError: The model cannot be served in the format.
    """
    checks = list(source.checks)
    if source.reference:
        order.on_phase(Phase.VERIFY)
        checks.append(compare_with_transformers(source).to_record())
    reduction, calibrated_on = _reduce(source, order)
    model = reduction.model
    order.on_phase(Phase.EXPORT)
    _save_tokenizers(source, order)
    weights = WeightFile(order.folder)
    encode_path = write_graph(EncodeGraph(model), order.folder, "encode", weights)
    decode_path = write_graph(DecodeGraph(model), order.folder, "decode", weights)
    rank_path = write_rank_graph(order.folder, model.config.target_vocabulary_size)
    if order.dtype == "fp16":
        checks += _write_device_graphs(model, order, weights)
    explanation = None
    if order.is_explained and model.attention_layers:
        explanation, check = fill_explanation(source, ExplainGraph(model), order, weights)
        checks.append(check)
    order.on_phase(Phase.VERIFY_GRAPHS)
    verifier = GenerationVerifier(source, encode_path, decode_path, model=model, dtype=order.dtype)
    found = verifier.verify()
    ranking = compare_rankings(rank_path, source.model.config.target_vocabulary_size)
    return Filling(
        source_vocabulary_size=source.model.config.source_vocabulary_size,
        max_source_length=source.model.config.max_source_length,
        verification=Verification(
            records=(*checks, *found.records, ranking.to_record()),
            is_batch_invariant=found.is_batch_invariant,
            greedy_agreement=found.greedy_agreement,
        ),
        fp32_layers=reduction.fp32_layers,
        layers=reduction.layers,
        calibrated_on=calibrated_on,
        generation=_make_record(source, is_for_devices=order.dtype == "fp16"),
        explanation=explanation,
    )


def _reduce(source: GenerationSource, order: Order) -> tuple[Reduction[Transformer], str | None]:
    """The model in the format that was asked for, and what that was chosen on."""
    if order.dtype == "fp32":
        return Reduction(model=source.model), None
    if isinstance(source.model, VariantModel):
        raise UnsupportedError(
            f"{source.name} is a variant of the Transformer, which cannot be served in "
            f"{order.dtype}; supported is fp32"
        )
    order.on_phase(Phase.QUANTIZE)
    chosen = choose_texts(
        order.calibration_texts,
        source.samples,
        source.source_tokenizer,
        max_texts=_choose_max_texts(source.model),
    )
    sources = [tokens for text in chosen.texts if (tokens := source.encode(text))]
    origin = chosen.origin
    if not sources:
        config = source.model.config
        sources, origin = make_random_sources(
            config.source_vocabulary_size, config.max_source_length
        )
    calibration = calibrate(source, sources)
    return copy_in_precision(source.model, order.dtype, calibration), origin


def _choose_max_texts(model: Transformer) -> int:
    """So few texts that a large model, which writes a target to each, is calibrated in a minute."""
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return 64 if num_parameters < 50e6 else 24


def _save_tokenizers(source: GenerationSource, order: Order) -> None:
    source.source_tokenizer.save(str(order.folder / SOURCE_TOKENIZER_FILE))
    if source.target_tokenizer is not None:
        source.target_tokenizer.save(str(order.folder / TARGET_TOKENIZER_FILE))


def _write_device_graphs(
    model: Transformer, order: Order, weights: WeightFile
) -> list[VerificationRecord]:
    """Writes what only devices need, and verifies it."""
    move_rows_path = write_graph(MoveRowsGraph(model), order.folder, "move_rows", weights)
    best_tokens_path = write_graph(BestTokensGraph(model), order.folder, "best_tokens", weights)
    return [
        compare_moves(model, move_rows_path).to_record(),
        compare_best_tokens(model, best_tokens_path).to_record(),
    ]


def _make_record(source: GenerationSource, *, is_for_devices: bool) -> GenerationRecord:
    config, generation = source.model.config, source.generation
    has_own_target = source.target_tokenizer is not None
    return GenerationRecord(
        encode_graph="encode.onnx",
        decode_graph="decode.onnx",
        rank_graph="rank.onnx",
        move_rows_graph="move_rows.onnx" if is_for_devices else None,
        best_tokens_graph="best_tokens.onnx" if is_for_devices else None,
        target_tokenizer=TARGET_TOKENIZER_FILE if has_own_target else SOURCE_TOKENIZER_FILE,
        target_vocabulary_size=config.target_vocabulary_size,
        # Every fed token needs a position, and the last new token is never fed: as many new tokens
        # as positions, the start token's included.
        max_target_length=config.max_target_length,
        num_layers=config.num_decoder_layers,
        num_heads=config.num_heads,
        head_size=config.head_size,
        decoder_start_token_id=generation.decoder_start_token_id,
        eos_token_id=generation.eos_token_id,
        pad_token_id=generation.pad_token_id,
        max_new_tokens=generation.max_new_tokens,
        num_beams=generation.num_beams,
        length_penalty=generation.length_penalty,
        early_stopping=generation.early_stopping,
        min_new_tokens=generation.min_new_tokens,
        no_repeat_ngram_size=generation.no_repeat_ngram_size,
        repetition_penalty=generation.repetition_penalty,
        forced_bos_token_id=generation.forced_bos_token_id,
        forced_eos_token_id=generation.forced_eos_token_id,
        suppressed_tokens=generation.suppressed_tokens,
        suppressed_sequences=generation.suppressed_sequences,
        do_sample=generation.do_sample,
        temperature=generation.temperature,
        top_k=generation.top_k,
        top_p=generation.top_p,
        languages=source.languages,
    )
