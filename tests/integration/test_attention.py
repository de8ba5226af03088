"""Attend over the real server: what it returns, what it refuses, and that it costs nobody else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from seqserve import explainer, session
from seqserve.client import AsyncClient, Attention, AttentionWeights, CallError
from seqserve.client.results import Token
from seqserve.config import ServerConfig
from seqserve.errors import ModelFolderError
from seqserve.metrics import Metrics
from seqserve.model_opening import open_model
from seqserve.preflight_process import Preflights
from seqserve.servicers import attention_source
from seqserve.task_record import Task
from seqserve.token_place import PlacedTokens, place_decoded
from seqserve.tokenizer import Tokenizer
from seqserve_export.exporter import export_model
from served_folders import copy_version, read_json, seal, write_json
from serving import MakeServer, RunningServer
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder
from tiny_hugging_face import make_hugging_face_folder

TOLERANCE = 1e-4
LANGUAGES: Any = {"source_language": "eng_Latn", "target_language": "deu_Latn"}
TEXT = "the old cat"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face folders: ``nllb``, told languages, and ``rerank``, which reads pairs."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("sources")
    make_hugging_face_folder("nllb", folder / "nllb", seed=1)
    make_tiny_encoder_folder(folder / "rerank", find_variant("bert"), Task.RERANK)
    return folder


@pytest.fixture(scope="module")
def explained(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with both, exported with explain graphs."""
    store = tmp_path_factory.mktemp("store")
    for name in ("nllb", "rerank"):
        export_model(sources / name, store, name=name, is_explained=True)
    return store


def connect(running: RunningServer) -> AsyncClient:
    """A client of a server."""
    return AsyncClient(f"127.0.0.1:{running.ports.grpc}")


def weights_of(found: AttentionWeights | None) -> np.ndarray[Any, Any]:
    """The weights of a kind that was asked for."""
    assert found is not None
    return found.weights


def read_back(text: str, tokens: Sequence[Token]) -> str:
    """What stands in a text where tokens are said to stand."""
    return "".join(text[one.start_offset : one.end_offset] for one in tokens)


def read_open_files() -> str:
    """The files that this process has open or mapped."""
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    return "\n".join([mapped, *(str(link.readlink()) for link in links)])


async def refusal(client: AsyncClient, **options: Any) -> tuple[str, str, list[str]]:
    """Code, text and fields of a call that fails."""
    with pytest.raises(CallError) as caught:
        await client.attend(options.pop("source", TEXT), **options)
    return caught.value.code, caught.value.message, list(caught.value.fields)


async def test_given_target_is_explained_as_by_transformers(
    sources: Path, explained: Path, serving: MakeServer
) -> None:
    """All layers and heads, of texts with languages; each row sums to 1."""
    async with serving(models=explained) as running, connect(running) as client:
        found = await client.attend(TEXT, model="nllb", target="der Hund", **LANGUAGES)
        assert running.num_outstanding == 0
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        sources / "nllb", attn_implementation="eager"
    )
    with torch.inference_mode():
        outputs = model.eval()(
            input_ids=torch.tensor([[token.token_id for token in found.source_tokens]]),
            decoder_input_ids=torch.tensor(
                [[token.token_id for token in found.decoder_input_tokens]]
            ),
            output_attentions=True,
        )
    for weights, expected in (
        (found.encoder_self, outputs.encoder_attentions),
        (found.decoder_self, outputs.decoder_attentions),
        (found.cross, outputs.cross_attentions),
    ):
        stacked = torch.cat(expected).numpy()
        assert weights_of(weights) == pytest.approx(stacked, abs=TOLERANCE)
        assert weights_of(weights).sum(axis=-1) == pytest.approx(1.0, abs=1e-5)
    places = [found.source_text[one.start_offset : one.end_offset] for one in found.source_tokens]
    assert "".join(places) == TEXT
    assert [one.text for one in found.source_tokens if one.is_special] == ["eng_Latn", "</s>"]
    tokens = [token.text for token in found.target_tokens]
    assert (tokens[0], tokens[-1], found.target_text) == ("deu_Latn", "</s>", "der Hund")
    # Each step reads what the one before it has written.
    assert found.decoder_input_tokens[1:] == found.target_tokens[:-1]


async def test_target_is_generated_if_none_is_given(explained: Path, serving: MakeServer) -> None:
    """By greedy search; offsets are those of its text."""
    async with serving(models=explained) as running, connect(running) as client:
        found = await client.attend(TEXT, model="nllb", kinds=["cross"], **LANGUAGES)
        (expected,) = await client.generate(TEXT, model="nllb", num_beams=1, **LANGUAGES)
        again = await client.attend(
            [one.token_id for one in found.source_tokens],
            model="nllb",
            target=[one.token_id for one in found.target_tokens],
            target_language=LANGUAGES["target_language"],
        )
    tokens = tuple(one.token_id for one in found.target_tokens)
    assert (tokens, found.target_text) == (expected.hypotheses[0].token_ids, expected.text)
    places = [found.target_text[one.start_offset : one.end_offset] for one in found.target_tokens]
    assert "".join(places) == found.target_text.replace(" ", "")
    assert (found.encoder_self, found.decoder_self) == (None, None)
    # Token ids are what the texts were made of, and say the same.
    assert (weights_of(found.cross) == weights_of(again.cross)).all()
    assert again.target_text == found.target_text


async def test_pair_is_explained_as_by_transformers(
    sources: Path, explained: Path, serving: MakeServer
) -> None:
    """Types of tokens count; the second text has offsets of its own."""
    second = "a dog sat"
    async with serving(models=explained) as running, connect(running) as client:
        found = await client.attend(TEXT, text_pair=second, model="rerank")
        alone = await client.attend(TEXT, model="rerank")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        sources / "rerank", attn_implementation="eager", dtype=torch.float32
    )
    num_tokens, start = len(found.source_tokens), found.pair_token_index
    with torch.inference_mode():
        outputs = model.eval()(
            input_ids=torch.tensor([[token.token_id for token in found.source_tokens]]),
            token_type_ids=torch.tensor([[0] * start + [1] * (num_tokens - start)]),
            output_attentions=True,
        )
    expected = torch.cat(outputs.attentions).numpy()
    assert weights_of(found.encoder_self) == pytest.approx(expected, abs=TOLERANCE)
    own = [one for one in found.source_tokens[start:] if not one.is_special]
    assert [second[one.start_offset : one.end_offset] for one in own] == second.split()
    assert (alone.pair_token_index, alone.target_tokens, alone.cross) == (0, (), None)


async def test_prompts_are_put_before_the_source(
    explained: Path, tmp_path: Path, serving: MakeServer
) -> None:
    """As before queries: the model's default, the one that is named, or none; of pairs, too."""
    folder = copy_version(explained / "rerank" / "1", tmp_path / "rerank" / "1")
    manifest = read_json(folder)
    prompts = {"query": "small models read ", "dog": "a dog and "}
    manifest["reranking"] |= {"prompts": prompts, "default_prompt_name": "query"}
    write_json(folder, manifest)
    async with serving(models=tmp_path) as running, connect(running) as client:
        for name, prompt in ((None, prompts["query"]), ("dog", prompts["dog"]), ("", "")):
            found = await client.attend(TEXT, prompt_name=name)
            same = await client.attend(prompt + TEXT, prompt_name="")
            assert (weights_of(found.encoder_self) == weights_of(same.encoder_self)).all()
            assert [one.token_id for one in found.source_tokens] == [
                one.token_id for one in same.source_tokens
            ]
            # Offsets are those of the text that was sent, in which the prompt is nowhere.
            assert found.source_text == TEXT
            assert [one.end_offset for one in found.source_tokens] == [
                max(0, one.end_offset - len(prompt)) for one in same.source_tokens
            ]
            assert read_back(TEXT, found.source_tokens) == TEXT.replace(" ", "")
        pair = await client.attend(TEXT, text_pair="a dog sat")
        assert read_back(TEXT, pair.source_tokens[: pair.pair_token_index]) == "theoldcat"
        assert read_back("a dog sat", pair.source_tokens[pair.pair_token_index :]) == "adogsat"


async def test_layers_heads_and_reductions(explained: Path, serving: MakeServer) -> None:
    """What is chosen is a part of all, and what is reduced is made of it."""
    call: dict[str, Any] = {"model": "nllb", "target": "der Hund", **LANGUAGES}
    async with serving(models=explained) as running, connect(running) as client:
        whole = await client.attend(TEXT, **call)
        part = await client.attend(TEXT, kinds=["cross"], layers=[1, 0], heads=[1], **call)
        by: dict[str, Attention] = {
            name: await client.attend(TEXT, reduction=name, **call)
            for name in ("mean_heads", "mean", "max", "rollout")
        }
    assert part.cross is not None
    assert (part.cross.layers, part.cross.heads) == ((1, 0), (1,))
    assert (part.cross.weights == weights_of(whole.cross)[[1, 0]][:, [1]]).all()
    for kind in ("encoder_self", "decoder_self", "cross"):
        all_of_kind = weights_of(getattr(whole, kind))
        means = all_of_kind.mean(axis=1, keepdims=True)
        assert weights_of(getattr(by["mean_heads"], kind)) == pytest.approx(means)
        mean = all_of_kind.mean(axis=(0, 1), keepdims=True)
        assert weights_of(getattr(by["mean"], kind)) == pytest.approx(mean)
        largest = all_of_kind.max(axis=(0, 1), keepdims=True)
        assert (weights_of(getattr(by["max"], kind)) == largest).all()
        if kind == "cross":
            assert by["rollout"].cross is None
            continue
        expected = np.eye(all_of_kind.shape[-1])
        for layer in all_of_kind.mean(axis=1):
            expected = (0.5 * layer + 0.5 * np.eye(len(layer))) @ expected
        rolled = weights_of(getattr(by["rollout"], kind))
        assert rolled[0, 0] == pytest.approx(expected, abs=1e-6)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"kinds": ["cross", "cross"]}, "kinds[1]", "must not be named twice: 3"),
    ({"layers": [0, 3]}, "layers[1]", "one of the 2 layers of encoder_self, from 0 to 1, but is 3"),
    ({"layers": [-1], "kinds": ["cross"]}, "layers[0]", "from 0 to 2, but is -1"),
    ({"heads": [2]}, "heads[0]", "one of the 2 heads of a layer, from 0 to 1, but is 2"),
    ({"heads": [0, 0]}, "heads[1]", "must not be named twice: 0"),
    ({"reduction": "rollout", "layers": [0]}, "layers", "must be unset with the reduction"),
    ({"reduction": "rollout", "kinds": ["cross"]}, "kinds[0]", "which is one of self-attention"),
    ({"kinds": ["encoder_self"], "target": "x"}, "target", "has no effect on"),
    ({"text_pair": "x"}, "input.text_pair", "read by models that classify or rerank"),
    ({"prompt_name": "query"}, "prompt_name", "are those of models that embed or rerank"),
    ({"model": "rerank", "prompt_name": "query"}, "prompt_name", "but is 'query'; they are: none"),
    (
        {"model": "rerank", "prompt_name": "", "source": [2, 5, 3]},
        "prompt_name",
        "must not be set with `token_ids`, which are taken as they are",
    ),
    ({"source": ""}, "input.text", "must not be empty"),
    ({"source": "cat " * 100}, "input.text", "must have at most 64 tokens, but has"),
    ({"target": "cat " * 100}, "target.text", "targets are never cut"),
    ({"target": [5, 99999]}, "target.token_ids.values[1]", "but is 99999"),
    ({"source_language": "xx"}, "input.source_language", "which the model does not know"),
    ({"model": "rerank", "target": "x"}, "target", "has an encoder only, and writes nothing"),
    ({"model": "rerank", "kinds": ["cross"]}, "kinds[0]", "1 (ATTENTION_KIND_ENCODER_SELF), but"),
    ({"model": "rerank", **LANGUAGES}, "input.source_language", "the model is not told languages"),
]


async def test_what_is_wrong_is_refused_by_its_name(explained: Path, serving: MakeServer) -> None:
    """With the field, the rule and the value, and nothing is opened for it."""
    async with serving(models=explained) as running, connect(running) as client:
        for options, field, text in REFUSED:
            base = {} if options.get("model") == "rerank" else {"model": "nllb", **LANGUAGES}
            code, message, fields = await refusal(client, **(base | options))
            assert (code, fields) == ("INVALID_ARGUMENT", [field]), message
            assert text in message
        assert not any(one.explainer and one.explainer.is_open for one in running.registry.models)
        assert running.num_outstanding == 0


async def test_size_is_limited_before_and_after_a_reduction(
    explained: Path, serving: MakeServer
) -> None:
    """The messages say how to ask for less, and doing that helps."""
    text = "a cat sat " * 18
    async with (
        serving(models=explained, max_message_bytes=16_000) as running,
        connect(running) as client,
    ):
        code, message, _ = await refusal(client, source=text, model="rerank")
        assert code == "INVALID_ARGUMENT"
        assert "bytes with 56 source tokens, but a reply may have 16000 (max_message_" in message
        assert message.endswith("`layers` or `heads`, for a `reduction`, or shorten the text")
        found = await client.attend(text, model="rerank", reduction="mean")
        assert weights_of(found.encoder_self).shape == (1, 1, 56, 56)
    async with (
        serving(models=explained, max_attention_bytes=110_000) as running,
        connect(running) as client,
    ):
        code, message, _ = await refusal(client, source=text, model="rerank", reduction="mean")
        assert code == "INVALID_ARGUMENT"
        assert "to compute with 56 source tokens, but may take 110000 (max_attention_" in message
        assert message.endswith("ask for fewer `kinds`, `layers` or `heads`, or shorten the text")
        await client.attend(text, model="rerank", layers=[0], heads=[1])
    async with (
        serving(models=explained, max_attention_bytes=2_000) as running,
        connect(running) as client,
    ):
        _, message, _ = await refusal(client, model="nllb", kinds=["cross"], **LANGUAGES)
        assert "source and 1 target tokens" in message  # nothing was generated for it


async def test_size_is_limited_before_tokens_are_placed(
    explained: Path, serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of a source and of a target are not decoded again and again for what is refused."""
    placed: list[int] = []

    def place(tokenizer: Tokenizer, token_ids: Sequence[int]) -> PlacedTokens:
        placed.append(len(token_ids))
        return place_decoded(tokenizer, token_ids)

    monkeypatch.setattr(attention_source, "place_decoded", place)
    async with (
        serving(models=explained, max_attention_bytes=30_000) as running,
        connect(running) as client,
    ):
        _, message, _ = await refusal(client, source=[5] * 60, model="rerank")
        assert "with 60 source tokens" in message
        options = {"model": "nllb", "kinds": ["decoder_self"], "target": [5] * 60, **LANGUAGES}
        _, message, _ = await refusal(client, **options)
        assert "60 target tokens" in message
    assert placed == []


async def test_alignments_are_the_mean_of_the_heads_of_the_manifest(
    explained: Path, serving: MakeServer
) -> None:
    """Soft, hard, of each hypothesis; streams and token ids have them, too."""
    record = read_json(explained / "nllb" / "1")["explanation"]["alignment"]
    async with serving(models=explained) as running, connect(running) as client:
        (result,) = await client.generate(
            TEXT,
            model="nllb",
            num_beams=2,
            num_return_sequences=2,
            return_alignments=True,
            **LANGUAGES,
        )
        for hypothesis in result.hypotheses:
            found = hypothesis.alignment
            assert found is not None
            whole = await client.attend(
                TEXT, model="nllb", target=hypothesis.token_ids, kinds=["cross"], **LANGUAGES
            )
            assert (found.source_tokens, found.target_tokens) == (
                whole.source_tokens,
                whole.target_tokens,
            )
            heads = [weights_of(whole.cross)[layer, head] for layer, head in record["heads"]]
            assert found.weights == pytest.approx(np.mean(heads, axis=0), abs=1e-6)
            for token, index, row in zip(
                found.target_tokens, found.source_indices, found.weights, strict=True
            ):
                own = [
                    -1.0 if source.is_special else float(weight)
                    for source, weight in zip(found.source_tokens, row, strict=True)
                ]
                assert index == (-1 if token.is_special else own.index(max(own)))
        async with client.generate_stream(
            [one.token_id for one in whole.source_tokens],
            model="nllb",
            return_alignments=True,
            num_beams=1,
            target_language=LANGUAGES["target_language"],
        ) as stream:
            assert [piece async for piece in stream]
            streamed = stream.result.hypotheses[0]
        assert streamed.alignment is not None
        assert streamed.alignment.weights.shape[0] == len(streamed.token_ids)
        (plain,) = await client.generate(TEXT, model="nllb", num_beams=1, **LANGUAGES)
        assert plain.hypotheses[0].alignment is None
        info = await client.get_model("nllb")
        assert info.attention is not None
        assert info.attention.alignment_heads == tuple(map(tuple, record["heads"]))
        assert info.attention.alignment_agreement == record["agreement"]
        assert (info.attention.encoder_layer_count, info.attention.decoder_layer_count) == (2, 3)
        assert info.attention.decoder_self_layer_count == 3
        reranker = await client.get_model("rerank")
        assert reranker.attention is not None
        assert (reranker.attention.decoder_layer_count, reranker.attention.head_count) == (0, 2)
        assert running.num_outstanding == 0


async def test_alignments_are_refused_before_anything_is_generated(
    explained: Path, tmp_path: Path, serving: MakeServer
) -> None:
    """By models that cannot; and where they would be too many for a reply."""
    async with serving() as running, connect(running) as client:
        with pytest.raises(CallError, match=r"UNIMPLEMENTED: .* without --no-explain"):
            await client.generate("a b", model="tiny", return_alignments=True)
    folder = copy_version(explained / "nllb" / "1", tmp_path / "nllb" / "1")
    manifest = read_json(folder)
    del manifest["explanation"]["alignment"]
    write_json(folder, manifest)
    async with serving(models=tmp_path) as running, connect(running) as client:
        with pytest.raises(CallError, match=r"UNIMPLEMENTED: .* with longer samples"):
            await client.generate(TEXT, model="nllb", return_alignments=True, **LANGUAGES)
    async with (
        serving(models=explained, max_message_bytes=4096) as running,
        connect(running) as client,
    ):
        call: dict[str, Any] = {"model": "nllb", "return_alignments": True, **LANGUAGES}
        with pytest.raises(CallError, match="send fewer inputs, lower `num_return") as caught:
            await client.generate([TEXT] * 8, min_new_tokens=24, **call)
        assert (caught.value.code, list(caught.value.fields)) == (
            "INVALID_ARGUMENT",
            ["return_alignments"],
        )
        (steps,) = running.metrics.step_duration.collect()
        assert steps.samples == []
        # What nobody knows before is refused after.
        with pytest.raises(CallError, match="send fewer inputs, lower `num_return"):
            await client.generate([TEXT] * 32, **call)
    async with (
        serving(models=explained, max_attention_bytes=2_000) as running,
        connect(running) as client,
    ):
        with pytest.raises(CallError, match=r"lower `max_new_tokens`, leave `return_al") as caught:
            await client.generate(TEXT, **call)
        assert list(caught.value.fields) == ["return_alignments"]


async def test_models_without_explain_graph_say_how_to_get_one(serving: MakeServer) -> None:
    """UNIMPLEMENTED, as what a model cannot do; health says so, too."""
    async with serving() as running, connect(running) as client:
        code, message, _ = await refusal(client, model="tiny")
        assert code == "UNIMPLEMENTED"
        assert message.endswith("export it again, without --no-explain")
        assert not await client.is_ready("seqserve.v1.AttentionService")
        assert await client.is_ready("seqserve.v1.GenerationService")


async def test_nothing_is_paid_until_somebody_asks(
    explained: Path, serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No session is opened and no file kept open; with the first call one is, and stays."""
    opened: list[Path] = []

    def open_session(path: Path, **settings: Any) -> Any:
        opened.append(path)
        return session.open_session(path, **settings)

    monkeypatch.setattr(explainer, "open_session", open_session)
    async with serving(models=explained) as running, connect(running) as client:
        assert await client.is_ready("seqserve.v1.AttentionService")
        await client.generate(TEXT, model="nllb", **LANGUAGES)
        await client.rerank(TEXT, ["a dog"], model="rerank")
        assert opened == []
        # Sessions of servers that have stopped may still be there.
        assert f"{explained}/nllb/1/explain.onnx" not in read_open_files()
        for _ in range(2):
            await client.attend(TEXT, model="rerank")
        assert opened == [explained / "rerank" / "1" / "explain.onnx"]
        is_open = {
            one.label: one.explainer.is_open for one in running.registry.models if one.explainer
        }
        assert is_open == {"nllb/1": False, "rerank/1": True}


def test_other_calls_are_served_by_the_same_sessions(
    explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without an explain graph the same graphs are opened in the same way."""
    opened: list[tuple[str, dict[str, Any]]] = []

    def record(path: Path, **settings: Any) -> Any:
        opened.append((path.name, settings))
        return session.open_session(path, **settings)

    for module in ("generation_graphs", "shared_sessions"):
        monkeypatch.setattr(f"seqserve.{module}.open_session", record)
    for name in ("nllb", "rerank"):
        folder = copy_version(explained / name / "1", tmp_path / name / "1")
        config = ServerConfig(models=tmp_path, threads=2)
        with_graph = open_model(folder, config, Metrics())
        first, opened[:] = list(opened), []
        manifest = read_json(folder)
        del manifest["explanation"], manifest["files"]["explain.onnx"]
        write_json(folder, manifest)
        without = open_model(folder, config, Metrics())
        assert (first, with_graph.explainer is None) == (opened, False)
        assert without.explainer is None
        assert {path.name for path in folder.glob("*.onnx")} - {one for one, _ in first} <= {
            "explain.onnx",
            "rank.onnx",
        }
        opened.clear()


def test_preflight_tries_the_explain_graph(explained: Path, tmp_path: Path) -> None:
    """One that is another graph is refused before anything is served."""
    folder = copy_version(explained / "nllb" / "1", tmp_path / "store" / "nllb" / "1")
    Preflights(ServerConfig()).check(folder)
    (folder / "explain.onnx").write_bytes((folder / "encode.onnx").read_bytes())
    seal(folder)
    with pytest.raises(ModelFolderError, match=r"explain\.onnx is not the graph the manifest mean"):
        Preflights(ServerConfig()).check(folder)
