"""seqserve: Transformer encoder-decoder and encoder-only models over gRPC, with onnxruntime.

The way of one request:

1. ``servicers``: message to request; validates, admits or refuses, tokenizes, makes a
   ``Sequence``, submits it and awaits its answer. Event loop.
2. ``lanes`` shares sequences out to the ``worker`` threads of the model, one for each running
   batch. A worker drains its inbox into the scheduler and runs batches.
3. ``scheduler``: pure policy. Which sequences go into the next batch, and what becomes of them;
   ``waiting_queue`` says whose turn it is, ``intake`` who fits, ``row_layout`` who has which row.
4. ``engine``: one batch through onnxruntime; ``cache`` holds keys and values, ``choice`` picks
   tokens, ``search`` makes what keeps the hypotheses. On a GPU ``device_engine``, ``device_cache``
   and ``best_choice`` take the places of the first three.
5. The answer goes back to the event loop; the servicer detokenizes and replies.

Shapes are written in one alphabet: B rows of the batch, K beams, S source length, T target length,
P cache capacity, V vocabulary, H heads, D head size, L layers, M model width.
"""

import os

__version__ = "0.1.0"

# From its import on, onnxruntime reports to its maker: which graphs are opened and on what machine,
# under an id that it keeps in the home directory. Whoever wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
