"""The models of the encode benchmark, for the server and for every peer.

* ``all-minilm-l6-v2``: real weights, from the package that the demonstration uses.
* ``bert-base``: the shape of BERT-base with seeded random weights, and the same tokenizer.

Each is a folder of sentence-transformers, two served models (fp32, int8) and two plain ONNX graphs
as users make them: exported by torch and, for int8, quantized by onnxruntime's tool with dynamic
scales. They are kept in a folder that git ignores, with a fingerprint of what they depend on.
"""

import hashlib
import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from bench.machine import installed_versions
from bench.workload import MeasurementError
from seqserve_export.demo import sentence_folder

ROOT = Path(__file__).parents[2]
WORK = Path(__file__).parent / "work-encode"
MINILM, BERT_BASE = "all-minilm-l6-v2", "bert-base"
FORMATS = ("fp32", "int8")
_PACKAGES = ("torch", "transformers", "sentence-transformers", "onnx", "onnxruntime", "onnxscript")
_SEED = 0
_OPSET = 17


class EncoderModel(NamedTuple):
    """One model in all its forms."""

    name: str
    checkpoint: Path
    """A folder of sentence-transformers."""
    store: Path
    """With the served models ``NAME-fp32`` and ``NAME-int8``."""
    plain: Path
    """``fp32.onnx`` and ``int8.onnx``."""

    @property
    def tokenizer_file(self) -> Path:
        """Of the tokenizer."""
        return self.checkpoint / "tokenizer.json"


def make_encoder_model(name: str, console: Console, work: Path = WORK) -> EncoderModel:
    """Makes a model that is not there yet, or no longer what the sources would make.

    Raises:
        MeasurementError: An export failed.
    """
    folder = work / name
    model = EncoderModel(name, folder / "checkpoint", folder / "store", folder / "plain")
    stamp = folder / "fingerprint.json"
    fingerprint = _make_fingerprint()
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == fingerprint:
        console.print(f"using the models in {folder}")
        return model
    if folder.exists():
        shutil.rmtree(folder)
    console.rule(f"making {name}")
    _in_child(_make_checkpoint, model)
    for dtype in FORMATS:
        _export(model, dtype)
    _in_child(_make_plain, model)
    stamp.write_text(json.dumps(fingerprint, indent=2) + "\n", encoding="utf-8")
    return model


def _make_fingerprint() -> dict[str, Any]:
    digest = hashlib.sha256()
    sources = [
        Path(__file__),
        *sorted((ROOT / "export" / "seqserve_export").rglob("*.py")),
        *(ROOT / "service" / "seqserve" / name for name in ("manifest.py", "task_record.py")),
    ]
    for path in sources:
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())
    return {"sources": digest.hexdigest(), "versions": installed_versions(*_PACKAGES)}


def _in_child(make: Any, model: EncoderModel) -> None:
    """In a process of its own, which gives back its memory."""
    child = multiprocessing.get_context("spawn").Process(target=make, args=(model,))
    child.start()
    child.join()
    if child.exitcode:
        raise MeasurementError(f"{make.__name__} of {model.name} ended with {child.exitcode}")


def _make_checkpoint(model: EncoderModel) -> None:
    shutil.copytree(sentence_folder(), model.checkpoint)
    if model.name == MINILM:
        return
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(_SEED)
    for path in model.checkpoint.glob("*.safetensors"):
        path.unlink()
    settings = json.loads((model.checkpoint / "config.json").read_text(encoding="utf-8"))
    bert = BertModel(BertConfig(vocab_size=settings["vocab_size"]))
    bert.save_pretrained(model.checkpoint)
    pooling_file = model.checkpoint / "1_Pooling" / "config.json"
    pooling = json.loads(pooling_file.read_text(encoding="utf-8"))
    for key in ("word_embedding_dimension", "embedding_dimension"):
        if key in pooling:
            pooling[key] = bert.config.hidden_size
    pooling_file.write_text(json.dumps(pooling), encoding="utf-8")


def _export(model: EncoderModel, dtype: str) -> None:
    command = [
        *(sys.executable, "-m", "seqserve_export", str(model.checkpoint), str(model.store)),
        *("--name", f"{model.name}-{dtype}", "--dtype", dtype, "--no-explain"),
    ]
    if code := subprocess.run(command, check=False).returncode:
        raise MeasurementError(f"exporting {model.name} as {dtype} ended with {code}")


def _make_plain(model: EncoderModel) -> None:
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from torch import Tensor, nn
    from transformers import AutoModel

    class States(nn.Module):
        """The model with its inputs in this order, and without what else it returns."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(model.checkpoint, attn_implementation="eager")

        def forward(self, input_ids: Tensor, mask: Tensor, token_types: Tensor) -> Any:
            """Tokens [B, S] to states [B, S, M]."""
            return self.bert(
                input_ids=input_ids, attention_mask=mask, token_type_ids=token_types
            ).last_hidden_state

    model.plain.mkdir(parents=True)
    tokens = torch.ones(2, 8, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {0: "batch_size", 1: "sequence_length"}
    torch.onnx.export(
        States().eval(),
        (tokens, tokens, torch.zeros_like(tokens)),
        model.plain / "fp32.onnx",
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: axes for name in (*names, "last_hidden_state")},
        opset_version=_OPSET,
        dynamo=False,  # the graphs that onnxruntime's fusions for BERT are made for
    )
    # As Optimum does it for processors with VNNI.
    quantize_dynamic(
        model.plain / "fp32.onnx",
        model.plain / "int8.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
