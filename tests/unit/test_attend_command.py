"""The command ``attend``, against a server with canned answers."""

import json
import struct
import sys
from pathlib import Path
from xml.etree import ElementTree

import grpc
import pytest

from command_line import run
from fake_server import FakeServer, Refusal
from seqserve.commands.picture_file import measure
from seqserve.v1 import attention_pb2, model_pb2


def test_attend_prints_what_each_target_token_came_from(server: FakeServer) -> None:
    """The best source tokens first, with their weights; by default the mean of all heads."""
    result = run(server, "attend", "--model", "fake", "cat")
    assert (result.exit_code, result.stdout) == (
        0,
        "C\tc 0.750\ta 0.125\tt 0.125\n"
        "A\ta 0.750\tc 0.125\tt 0.125\n"
        "T\tt 0.750\tc 0.125\ta 0.125\n",
    )
    asked, request = server.requests
    assert asked.model_name == "fake"  # for its kind of attention
    result = run(server, "attend", "aba")
    assert result.stdout.splitlines()[0] == "A\ta[0] 0.750\tb 0.125\ta[2] 0.125"
    assert (request.model_name, request.input.text) == ("fake", "cat")
    assert request.reduction == attention_pb2.ATTENTION_REDUCTION_MEAN
    assert request.kinds == [attention_pb2.ATTENTION_KIND_CROSS]
    assert not request.HasField("target")


@pytest.mark.parametrize(
    ("encoder_layers", "decoder_layers", "reduction", "kind"),
    [
        (4, 2, "mean", "CROSS"),
        (4, 0, "mean", "ENCODER_SELF"),
        (0, 2, "mean", "CROSS"),
        (4, 2, "rollout", "ENCODER_SELF"),
        (0, 2, "rollout", "DECODER_SELF"),
        (0, 0, "mean", "ENCODER_SELF"),
    ],
)
def test_attend_asks_for_no_more_than_it_shows(
    server: FakeServer, encoder_layers: int, decoder_layers: int, reduction: str, kind: str
) -> None:
    """A layer that the encoder alone has is not refused for kinds that nobody asked for."""
    (shown,) = [model for model in server.models if model.name == "fake"]
    server.models = [model_pb2.Model()]
    server.models[0].CopyFrom(shown)
    server.models[0].ClearField("attention")
    if encoder_layers or decoder_layers:
        server.models[0].attention.CopyFrom(
            model_pb2.AttentionSettings(
                encoder_layer_count=encoder_layers, decoder_layer_count=decoder_layers, head_count=4
            )
        )
    result = run(server, "attend", "ab", "--version", "1", "--reduction", reduction)
    assert result.exit_code == 0
    asked, request = server.requests
    assert (asked.model_name, asked.model_version) == ("", "1")
    assert request.kinds == [attention_pb2.AttentionKind.Value(f"ATTENTION_KIND_{kind}")]


def test_kinds_that_are_named_are_asked_for_at_once(server: FakeServer) -> None:
    """And so is everything with --json: there is nothing to choose."""
    run(server, "attend", "ab", "--kind", "encoder_self", "--kind", "cross")
    run(server, "attend", "ab", "--json")
    named, unnamed = server.requests
    assert named.kinds == [
        attention_pb2.ATTENTION_KIND_ENCODER_SELF,
        attention_pb2.ATTENTION_KIND_CROSS,
    ]
    assert not unnamed.kinds


def test_a_model_that_is_not_there_is_one_line(server: FakeServer) -> None:
    """Also when it is the call for its kinds that says so."""
    server.refusals = [Refusal(grpc.StatusCode.NOT_FOUND, "there is no model 'x'")]
    result = run(server, "attend", "--model", "x", "ab")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "there is no model 'x'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_options_of_attend_reach_the_request(server: FakeServer) -> None:
    """All of them; what was cut is noted on standard error."""
    result = run(
        server,
        *("attend", "ab", "--target-text", "xy", "--kind", "cross", "--layer", "1", "--layer", "2"),
        *("--head", "0", "--reduction", "max", "--source-language", "de"),
        *("--target-language", "en", "--truncate", "--priority", "high", "--prompt-name", "query"),
    )
    assert result.stderr == "note: 3 tokens of input 1 were cut\n"
    assert result.stdout == "x\ta 0.750\tb 0.250\ny\tb 0.750\ta 0.250\n"
    (request,) = server.requests
    assert (request.target.text, list(request.layers), list(request.heads)) == ("xy", [1, 2], [0])
    assert list(request.kinds) == [attention_pb2.ATTENTION_KIND_CROSS]
    assert request.reduction == attention_pb2.ATTENTION_REDUCTION_MAX
    assert (request.input.source_language, request.input.target_language) == ("de", "en")
    assert request.prompt_name == "query"


def test_pairs_show_the_attention_of_the_encoder(server: FakeServer) -> None:
    """There is no other."""
    result = run(server, "attend", "ab", "--model", "vectors", "--pair", "cd")
    assert result.stdout == "a\ta 0.750\tb 0.250\nb\tb 0.750\ta 0.250\n"


def test_json_has_tokens_and_all_weights(server: FakeServer) -> None:
    """As the client returns them, nothing reduced unless that is asked for."""
    record = json.loads(run(server, "attend", "--json", "ab").stdout)
    assert server.requests[0].reduction == attention_pb2.ATTENTION_REDUCTION_NONE
    assert record["cross"] == {
        "layers": [0],
        "heads": [0, 1],
        "weights": [[[[0.75, 0.25], [0.25, 0.75]]]],
    }
    assert record["encoder_self"] is None
    assert [token["text"] for token in record["target_tokens"]] == ["A", "B"]
    assert (record["source_text"], record["target_text"]) == ("ab", "AB")


def test_what_does_not_fit_lines_is_refused_without_json(server: FakeServer) -> None:
    """A matrix for each head would not tell where one ends."""
    result = run(server, "attend", "ab", "--reduction", "mean_heads")
    assert result.exit_code == 2
    assert "leaves several matrices, which are printed with --json only" in result.stderr
    assert server.requests == []


def test_pictures_are_drawn_with_tokens_on_their_axes(server: FakeServer, tmp_path: Path) -> None:
    """A cell for each pair, which tells what it is; as SVG, or as a page around it."""
    for name in ("attention.svg", "attention.html"):
        path = tmp_path / name
        result = run(server, "attend", "<&>é字שa", "--out", str(path))
        assert result.stdout == f"wrote {path}\n"
        text = path.read_text(encoding="utf-8")
        start = text.index("<svg")
        root = ElementTree.fromstring(text[start : text.index("</svg>") + len("</svg>")])
        names = {"svg": "http://www.w3.org/2000/svg"}
        rows, columns = (
            [one.text for one in root.iterfind(f".//svg:text[@class='{side}']", names)]
            for side in ("row", "column")
        )
        assert rows == [*"<&>É字", "\u2067ש\u2069", "A"]
        assert columns == [*"<&>é字", "\u2067ש\u2069", "a"]
        titles = [one.text for one in root.iterfind(".//svg:title", names)]
        assert len(titles) == 49
        assert titles[:2] == ["< ← < 0.750", "< ← & 0.042"]
        if name.endswith("html"):
            assert '<p dir="auto">&lt;&amp;&gt;é字שa</p>' in text


def test_pictures_as_png(server: FakeServer, tmp_path: Path) -> None:
    """Twice as many pixels as the SVG has, which are not all white."""
    path = tmp_path / "attention.png"
    assert run(server, "attend", "ab", "--out", str(path)).stdout == f"wrote {path}\n"
    run(server, "attend", "ab", "--out", str(path.with_suffix(".svg")))
    data = path.read_bytes()
    width, height = measure(path.with_suffix(".svg").read_text(encoding="utf-8"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    sizes = struct.unpack(">II", data[16:24])
    assert sizes == pytest.approx((2 * width, 2 * height), abs=1)
    assert len(data) > 2000


def test_what_cannot_be_drawn_is_refused(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is asked of the server, but for what is too large."""
    result = run(server, "attend", "ab", "--out", str(tmp_path / "a.gif"))
    assert result.exit_code == 2
    assert "--out must end with .svg, .html or .png" in result.stderr
    assert run(server, "attend", "ab", "--out", "a.svg", "--json").exit_code == 2
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    result = run(server, "attend", "ab", "--out", str(tmp_path / "a.png"))
    assert result.exit_code == 2
    assert "needs the extra `picture`: pip install 'seqserve[picture]'" in result.stderr
    result = run(server, "attend", "ab", "--out", str(tmp_path / "none" / "a.svg"))
    assert result.exit_code == 2
    assert "--out must be in a folder that is there, but is " in result.stderr
    assert server.requests == []
    monkeypatch.undo()
    result = run(server, "attend", "a" * 350, "--out", str(tmp_path / "a.png"))
    assert result.exit_code == 1
    assert "pixels, too large for a PNG; write an .svg, or choose fewer" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".svg", ".html", ".png"])
def test_a_file_that_cannot_be_written_is_one_line(
    server: FakeServer, tmp_path: Path, suffix: str
) -> None:
    """What the system says of it, and exit code 1."""
    path = tmp_path / f"{'a' * 300}{suffix}"
    result = run(server, "attend", "ab", "--out", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: {path} cannot be written: File name too long\n"
