"""Models in smaller number formats, served: as independent of their neighbours as in fp32."""

from pathlib import Path

import pytest

from seqserve.client import AsyncClient
from seqserve_export.exporter import export_model
from seqserve_export.precision import Dtype
from serving import MakeServer
from tiny_checkpoint import make_tiny_checkpoint

WORDS = ("a b c", "z", "h e l l o w o r l d", "q q q q", "m n o p q r s t u v w x y z")


@pytest.mark.parametrize("dtype", ["int8", "fp16"])
async def test_served_alone_and_together_alike(
    dtype: Dtype, tmp_path: Path, serving: MakeServer
) -> None:
    """Greedy and beam search over caches of the format, bit for bit the same."""
    source = make_tiny_checkpoint(tmp_path / "source", 8)
    export_model(source, tmp_path / "store", name="small", dtype=dtype)
    async with (
        serving(models=tmp_path / "store") as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        assert (await client.get_model()).dtype == dtype
        for num_beams in (1, 3):
            together = await client.generate(WORDS, num_beams=num_beams, return_scores=True)
            for word, result in zip(WORDS, together, strict=True):
                (alone,) = await client.generate(word, num_beams=num_beams, return_scores=True)
                assert alone.hypotheses == result.hypotheses
        assert len({result.hypotheses[0].token_ids for result in together}) > 1
