"""Measures embedding against sentence-transformers, ONNX peers, and the graph run alone.

``make bench`` runs it. Sides are processes of their own, measured in turn in every round; ratios of
medians are what counts, since absolute numbers are those of the machine that the result file names.

* bulk: thousands of texts of mixed lengths, ours over gRPC through ``EmbedStream``.
* single: one short sentence at a time.
* clients: 64 of them, each with one sentence at a time, against the simplest server around
  sentence-transformers.
* fairness: single sentences of one caller while another's request with all texts is worked on.

Models and formats: :mod:`bench.encode_models`. A side counts in int8 only if its vectors are as
close to those of sentence-transformers as :data:`bench.encode_report.LEAST_COSINE` asks for.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.encode_extent import FULL, QUICK, Extent
from bench.encode_models import BERT_BASE, FORMATS, MINILM, EncoderModel, make_encoder_model
from bench.encode_report import REFERENCE, TARGETS, make_ratios, print_report
from bench.encode_texts import choose_short, describe_lengths, read_texts
from bench.json_process import JsonProcess
from bench.machine import describe_machine, installed_versions
from bench.server_process import running_module, running_seqserve
from seqserve.client import Client

RESULTS = Path(__file__).parent / "results" / "encode.json"
_PACKAGES = (
    *("onnxruntime", "torch", "transformers", "sentence-transformers"),
    *("tokenizers", "grpcio", "numpy"),
)
_NUM_CLIENTS = 64
_NUM_BESIDE = 5
"""Single sentences between two looks at whether the other request is done."""
_BATCH_SIZES = (16, 32, 64, 128)
_RAW_TOKENS = (256, 512, 1024, 2048)
_LIMITS = {
    "max_request_seconds": "1200",
    # All texts may come in one request.
    **dict.fromkeys(("max_inputs_per_request", "max_outstanding"), "20000"),
    "max_tokens_per_request": "10000000",
    "max_message_bytes": "134217728",
}
_Embed = Callable[[Path, Path | None], float]


def main() -> None:
    """Measures the models asked for, and writes the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--extent", choices=["quick", "full"], default="quick")
    parser.add_argument("--model", action="append", choices=[MINILM, BERT_BASE])
    parser.add_argument(
        "--peer-python", default=sys.executable, help="of the environment that fastembed is in"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console(width=140)
    extent = FULL if arguments.extent == "full" else QUICK
    parts: dict[str, Any] = {}
    for name in arguments.model or []:
        if name not in extent.num_texts:
            parser.error(f"{name} is measured with --extent full only")
    for name in arguments.model or extent.num_texts:
        model = make_encoder_model(name, console)
        console.rule(name)
        parts[name] = {
            "extent": arguments.extent,
            **measure(model, extent, arguments.peer_python, console),
        }
    ratios = make_ratios(parts)
    result = {
        "machine": describe_machine(),
        "versions": installed_versions(*_PACKAGES),
        "ratios": ratios,
        "targets": {name: str(target) for name, target in TARGETS.items()},
        "parts": parts,
    }
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print_report(parts, ratios, console)
    console.print(f"wrote {arguments.results}")


def measure(
    model: EncoderModel, extent: Extent, peer_python: str, console: Console
) -> dict[str, Any]:
    """All workloads of one model."""
    texts = read_texts(model.tokenizer_file, extent.num_texts[model.name])
    short = choose_short(model.tokenizer_file, texts)
    with tempfile.TemporaryDirectory() as scratch, _running_sides(model, peer_python) as processes:
        folder = Path(scratch)
        version = processes.libraries["fastembed_fp32"].call("version")
        texts_file, sample_file = folder / "texts.json", folder / "sample.json"
        texts_file.write_text(json.dumps(texts), encoding="utf-8")
        sample = texts[: extent.num_sample_texts[model.name]]
        sample_file.write_text(json.dumps(sample), encoding="utf-8")
        sides, settings = _choose_settings(processes, sample_file, console)
        seconds, cosines = _embed_all(sides, texts, folder, extent.num_rounds)
        console.print("bulk measured")
        single = _time_single(processes, short, extent)
        console.print("single sentences measured")
        clients = _run_clients(processes, short, extent.num_calls[model.name], extent.num_rounds)
        console.print("clients measured")
        fairness = _measure_fairness(processes, texts_file, short)
        console.print("fairness measured")
    return {
        "num_texts": len(texts),
        "num_rounds": extent.num_rounds,
        "lengths": describe_lengths(model.tokenizer_file, texts),
        "fastembed_version": version,
        "settings": settings,
        "cosines": cosines,
        "bulk_seconds": seconds,
        "single_seconds": single,
        "clients": clients,
        "fairness_seconds": fairness,
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Processes:
    """Everything that runs while a model is measured."""

    model: EncoderModel
    target: str
    peer_target: str
    calls: JsonProcess
    other_calls: JsonProcess
    """Of another caller."""
    libraries: dict[str, JsonProcess]
    """Peers, by their names."""
    raw: dict[str, JsonProcess]
    """Our graphs alone, by format."""


@contextlib.contextmanager
def _running_sides(model: EncoderModel, peer_python: str) -> Iterator[_Processes]:
    with contextlib.ExitStack() as stack:

        def run(module: str, *arguments: object, python: str = sys.executable) -> JsonProcess:
            process = JsonProcess(module, *map(str, arguments), python=python)
            return stack.enter_context(process)

        libraries = {REFERENCE: run("bench.peer_sentence_transformers", model.checkpoint)}
        for dtype in FORMATS:
            graph = model.plain / f"{dtype}.onnx"
            libraries[f"fastembed_{dtype}"] = run(
                "bench.peer_fastembed", graph, model.checkpoint, python=peer_python
            )
            libraries[f"onnxruntime_{dtype}"] = run(
                "bench.peer_onnxruntime", graph, model.tokenizer_file
            )
        served = {dtype: f"{model.name}-{dtype}" for dtype in FORMATS}
        raw = {
            dtype: run("bench.raw_session", model.store / name / "1")
            for dtype, name in served.items()
        }

        def embed_first(target: str) -> None:
            with Client(target) as client:
                for name in served.values():
                    client.embed("first", model=name)

        def embed_first_at_peer(target: str) -> None:
            calls.call("time_single", target=target, model="", texts=["first"])

        calls = run("bench.encode_calls")
        server = stack.enter_context(running_seqserve(model.store, _LIMITS, embed_first))
        peer_module = ["bench.encode_peer_server", str(model.checkpoint)]
        peer_server = stack.enter_context(running_module("peer", peer_module, embed_first_at_peer))
        yield _Processes(
            model=model,
            target=server.target,
            peer_target=peer_server.target,
            calls=calls,
            other_calls=run("bench.encode_calls"),
            libraries=libraries,
            raw=raw,
        )


def _choose_settings(
    processes: _Processes, sample_file: Path, console: Console
) -> tuple[dict[str, _Embed], dict[str, int]]:
    """All sides, each with what it is fastest with on the sample."""
    sides: dict[str, _Embed] = {}
    settings: dict[str, int] = {}
    for dtype in FORMATS:
        arguments = {"target": processes.target, "model": f"{processes.model.name}-{dtype}"}
        sides[f"seqserve_{dtype}"] = _embedding(processes.calls, **arguments)
        sides[f"seqserve_{dtype}"](sample_file, None)  # warm up
    peers = [(name, one, "batch_size", _BATCH_SIZES) for name, one in processes.libraries.items()]
    peers += [
        (f"raw_{dtype}", one, "max_tokens", _RAW_TOKENS) for dtype, one in processes.raw.items()
    ]
    for name, process, setting, values in peers:
        _embedding(process, **{setting: values[0]})(sample_file, None)  # warm up
        seconds = {
            value: _embedding(process, **{setting: value})(sample_file, None) for value in values
        }
        best = min(seconds, key=seconds.__getitem__)
        console.print(f"{name} is fastest with {setting}={best}")
        settings[name] = best
        sides[name] = _embedding(process, **{setting: best})
    return sides, settings


def _embedding(process: JsonProcess, **arguments: Any) -> _Embed:
    def embed(texts_file: Path, vectors_file: Path | None) -> float:
        seconds: float = process.call(
            "embed",
            texts_file=str(texts_file),
            vectors_file=None if vectors_file is None else str(vectors_file),
            **arguments,
        )
        return seconds

    return embed


def _embed_all(
    sides: dict[str, _Embed], texts: list[str], folder: Path, num_rounds: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Seconds of each side in each round, and cosines of its vectors with the reference's."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    products: dict[str, list[float]] = {name: [] for name in sides}
    for place in range(num_rounds):
        texts_file = folder / f"texts-{place}.json"
        texts_file.write_text(json.dumps(texts[place::num_rounds]), encoding="utf-8")
        vectors = {}
        for name, embed in sides.items():
            vectors_file = folder / f"{name}.npy"
            seconds[name].append(embed(texts_file, vectors_file))
            rows = np.load(vectors_file)
            vectors[name] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for name, rows in vectors.items():
            products[name] += (rows * vectors[REFERENCE]).sum(axis=1).tolist()
    cosines = {
        name: {"mean": float(np.mean(found)), "least": min(found)}
        for name, found in products.items()
    }
    return seconds, cosines


def _time_single(processes: _Processes, short: list[str], extent: Extent) -> dict[str, list[float]]:
    """Seconds of single sentences, in turn."""
    texts = short[: extent.num_single]
    seconds: dict[str, list[float]] = {}
    for place in range(extent.num_rounds + 1):
        found = {
            f"seqserve_{dtype}": processes.calls.call(
                "time_single",
                target=processes.target,
                model=f"{processes.model.name}-{dtype}",
                texts=texts,
            )
            for dtype in FORMATS
        }
        for name, library in processes.libraries.items():
            found[name] = library.call("time_single", texts=texts)
        if place:  # the first round warms up
            for name, values in found.items():
                seconds.setdefault(name, []).extend(values)
    return seconds


def _run_clients(
    processes: _Processes, short: list[str], num_calls: int, num_rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Each round of clients of each side."""
    sides = {
        f"seqserve_{dtype}": (processes.target, f"{processes.model.name}-{dtype}")
        for dtype in FORMATS
    }
    sides[REFERENCE] = (processes.peer_target, "")
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(num_rounds):
        for name, (target, model) in sides.items():
            rounds[name].append(
                processes.calls.call(
                    "run_clients",
                    target=target,
                    model=model,
                    texts=short,
                    num_clients=_NUM_CLIENTS,
                    num_calls=num_calls,
                )
            )
    return rounds


def _measure_fairness(
    processes: _Processes, texts_file: Path, short: list[str]
) -> dict[str, list[float]]:
    """Seconds of single sentences alone, and while all texts of another are worked on."""
    arguments = {"target": processes.target, "model": f"{processes.model.name}-int8"}
    alone = processes.calls.call("time_single", texts=short[:_NUM_BESIDE], **arguments)
    beside: list[float] = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        bulk = pool.submit(
            processes.other_calls.call, "embed_at_once", texts_file=str(texts_file), **arguments
        )
        while not bulk.done():
            beside += processes.calls.call("time_single", texts=short[:_NUM_BESIDE], **arguments)
        seconds = bulk.result()
    return {"alone": alone, "beside": beside, "bulk": [seconds]}


if __name__ == "__main__":
    main()
