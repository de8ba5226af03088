"""The Open Inference Protocol, version 2: requests of tensors, answered by our own servicers.

The way of one request: ``inference`` finds the model and the signature that fits the tensors;
``tensor_reading`` and ``parameter`` check them; the module of the task makes a request of
``seqserve.v1`` and hands it to the servicer that answers it for everybody; what it replies becomes
tensors again (``tensor_writing``). There is no second path: limits, admission, turns and errors are
those of the servicers. Tensors of token ids for encoders, which ``seqserve.v1`` has no request for,
go to the same lanes (``token_prediction``).

N is the number of inputs in a request, R that of hypotheses of each.

Source: the specification of KServe (``open-inference-protocol``), and Triton's extensions of it.
"""
