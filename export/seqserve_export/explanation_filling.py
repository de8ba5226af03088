"""Adds to a model folder the graph that tells of the attention."""

from seqserve.attention_kind import AttentionKind
from seqserve.explanation_record import ExplanationRecord
from seqserve.manifest import VerificationRecord
from seqserve_export.alignment_choice import choose_alignment
from seqserve_export.explain_graph import Explainable, ExplainGraph
from seqserve_export.explanation_verification import compare_explanations
from seqserve_export.filling import Order
from seqserve_export.onnx_writer import write_graph
from seqserve_export.source import GenerationSource, Source
from seqserve_export.weight_file import WeightFile


def fill_explanation(
    source: Source, graph: Explainable, order: Order, weights: WeightFile
) -> tuple[ExplanationRecord, VerificationRecord]:
    """Writes and verifies the graph; it takes its weights from the others' file.

    Args:
        source: What is exported.
        graph: Of the model in the format that is served.
        order: Where to write.
        weights: The folder's file of weights, those of the served graphs being in it.

    Returns:
        How to use it, and how it was verified.

    Raises:
        VerificationError: Torch and the graph differ.
    """
    path = write_graph(graph, order.folder, "explain", weights)
    check = compare_explanations(source, graph, path, order.dtype)
    alignment = None
    if isinstance(source, GenerationSource) and isinstance(graph, ExplainGraph):
        alignment = choose_alignment(source, graph)
    record = ExplanationRecord(
        graph=path.name,
        num_encoder_layers=graph.layers.get(AttentionKind.ENCODER_SELF, 0),
        num_decoder_layers=graph.layers.get(AttentionKind.CROSS, 0),
        is_recurrent=AttentionKind.CROSS in graph.layers
        and AttentionKind.DECODER_SELF not in graph.layers,
        num_heads=graph.model.config.num_heads,
        has_token_types=not isinstance(graph, ExplainGraph) and graph.has_token_types,
        alignment=alignment,
    )
    return record, check.to_record()
