"""Reads the JSON files of checkpoint folders."""

import json
from pathlib import Path
from typing import Any

from seqserve_export.errors import CheckpointError


def read_json(path: Path) -> Any:
    """Reads any JSON value.

    Raises:
        CheckpointError: The file is absent or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: The file is absent, not JSON or not an object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return content
