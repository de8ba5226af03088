"""Folders as Optimum exports them, made of tiny Hugging Face folders by tracing their models.

Depends on torch, transformers and onnx; import it only where those are at hand.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers
from torch import Tensor

from seqserve.task_record import Task
from tiny_encoder_folder import MODEL_CLASSES, find_variant, make_tiny_encoder_folder

OPSET_VERSION = 18
_SOURCE_AXES = {0: "batch_size", 1: "encoder_sequence_length"}
_TARGET_AXES = {0: "batch_size", 1: "decoder_sequence_length"}


def make_onnx_encoder(folder: Path, name: str = "bert", task: Task = Task.CLASSIFY) -> Path:
    """Makes the folder of a tiny encoder whose weights are in its graph."""
    make_tiny_encoder_folder(folder, find_variant(name), task)
    replace_encoder_weights(folder, MODEL_CLASSES[task])
    return folder


def replace_encoder_weights(folder: Path, model_class: Any) -> None:
    """Puts ``model.onnx`` in the place of ``model.safetensors``.

    Args:
        folder: Of an encoder.
        model_class: An automatic class of ``transformers``; decides the head.
    """
    model = _load(folder, model_class)
    # As Optimum does, RoBERTa is exported for single texts.
    has_types = getattr(model.config, "type_vocab_size", 0) > 1
    has_types &= model.config.model_type != "roberta"
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if has_types else [])]
    output = "last_hidden_state" if model_class is transformers.AutoModel else "logits"
    forward = model.forward

    def traced(*inputs: Tensor) -> Tensor:
        result: Tensor = forward(**dict(zip(names, inputs, strict=True)))[output]
        return result

    # A second module around the model would show in all names.
    model.forward = traced
    row = torch.ones(2, 5, dtype=torch.long)
    _trace(model, (row,) * len(names), folder / "model.onnx", names, [output])
    (folder / "model.safetensors").unlink()


def replace_encoder_decoder_weights(folder: Path) -> None:
    """Puts ``encoder_model.onnx`` and ``decoder_model.onnx`` in the place of SafeTensors."""
    model = _load(folder, transformers.AutoModelForSeq2SeqLM)
    encoder = model.get_encoder()
    encode, decode = encoder.forward, model.forward

    def traced_encoder(tokens: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = encode(tokens, attention_mask=mask).last_hidden_state
        return states

    def traced_decoder(mask: Tensor, tokens: Tensor, states: Tensor) -> Tensor:
        logits: Tensor = decode(
            encoder_outputs=(states,),
            attention_mask=mask,
            decoder_input_ids=tokens,
            use_cache=False,
        ).logits
        return logits

    row = torch.ones(2, 5, dtype=torch.long)
    encoder.forward = traced_encoder
    names = ["input_ids", "attention_mask"]
    _trace(encoder, (row, row), folder / "encoder_model.onnx", names, ["last_hidden_state"])
    encoder.forward = encode
    model.forward = traced_decoder
    states = torch.ones(2, 5, model.config.d_model)
    names = ["encoder_attention_mask", "input_ids", "encoder_hidden_states"]
    inputs = (row, row[:, :3], states)
    _trace(model, inputs, folder / "decoder_model.onnx", names, ["logits"])
    (folder / "model.safetensors").unlink()


def change_graph(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Changes a graph in its file."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def use_external_data(path: Path) -> None:
    """Moves the weights of a graph into a file beside it, as is done above 2 GiB."""
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location=f"{path.name}_data",
        size_threshold=100,
    )


def merge_decoders(folder: Path) -> None:
    """Puts ``decoder_model_merged.onnx`` in the place of ``decoder_model.onnx``.

    Both branches hold the same nodes; what counts is that the weights are outside, with new names.
    """
    model = onnx.load(folder / "decoder_model.onnx")
    graph = model.graph
    names = {weight.name: f"{weight.name}_merged_0" for weight in graph.initializer}
    for weight in graph.initializer:
        weight.name = names[weight.name]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = ["branch_logits" if name == "logits" else name for name in node.output]
    (logits,) = graph.output
    branch_output = onnx.ValueInfoProto()
    branch_output.CopyFrom(logits)
    branch_output.name = "branch_logits"
    choice = onnx.helper.make_node("If", ["use_cache_branch"], ["logits"])
    for kind in ("then", "else"):
        branch = onnx.helper.make_graph(graph.node, kind, [], [branch_output])
        choice.attribute.append(onnx.helper.make_attribute(f"{kind}_branch", branch))
    shape = ("batch_size", 2, "past_decoder_sequence_length", 16)
    merged = onnx.helper.make_graph(
        [choice],
        "merged",
        [
            *graph.input,
            onnx.helper.make_tensor_value_info(
                "past_key_values.0.decoder.key", onnx.TensorProto.FLOAT, shape
            ),
            onnx.helper.make_tensor_value_info("use_cache_branch", onnx.TensorProto.BOOL, [1]),
        ],
        [logits],
        graph.initializer,
    )
    onnx.save(
        onnx.helper.make_model(
            merged, opset_imports=model.opset_import, ir_version=model.ir_version
        ),
        folder / "decoder_model_merged.onnx",
    )
    (folder / "decoder_model.onnx").unlink()


def _load(folder: Path, model_class: Any) -> Any:
    model = model_class.from_pretrained(
        folder, local_files_only=True, attn_implementation="eager", dtype=torch.float32
    )
    return model.eval()


def _trace(
    model: Any, inputs: tuple[Tensor, ...], path: Path, names: list[str], outputs: list[str]
) -> None:
    """Exports as Optimum does, with the exporter that torch deprecated."""
    is_decoder = "encoder_hidden_states" in names
    axes = {
        name: _TARGET_AXES if is_decoder and name == "input_ids" else _SOURCE_AXES for name in names
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", "(?s).* might not generalize to other inputs")
        warnings.filterwarnings("ignore", "torch.tensor results are registered as constants")
        warnings.filterwarnings("ignore", "Exporting aten::index operator", UserWarning)
        warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)
        torch.onnx.export(
            model,
            inputs,
            path,
            input_names=names,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET_VERSION,
            dynamo=False,
        )
