"""The text that is put before inputs, as a model was trained to be used."""

from seqserve.errors import InvalidRequestError
from seqserve.task_record import PromptedRecord
from seqserve.v1 import attention_pb2, encoding_pb2


def resolve_prompt(
    request: encoding_pb2.EmbedRequest | encoding_pb2.RerankRequest | attention_pb2.AttendRequest,
    record: PromptedRecord,
) -> str:
    """The prompt of a request; empty for none.

    Raises:
        InvalidRequestError: The model has no such prompt.
    """
    if not request.HasField("prompt_name"):
        return (
            "" if record.default_prompt_name is None else record.prompts[record.default_prompt_name]
        )
    name = request.prompt_name
    if not name:
        return ""
    if name not in record.prompts:
        raise InvalidRequestError(
            "prompt_name",
            f"`prompt_name` must be one of the model's prompts or empty, but is {name!r}; they "
            f"are: {', '.join(sorted(record.prompts)) or 'none'}",
        )
    return record.prompts[name]
