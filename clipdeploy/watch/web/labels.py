"""Labels as they are typed on the page."""

from __future__ import annotations

import json
import re

from clipdeploy.errors import InputError

MOST_BYTES = 64_000
MOST_LABELS = 1000


def read_labels(body: bytes) -> tuple[str, ...]:
    """The labels of a request: `{"text": "one a line, or\\nbetween commas"}` or `{"labels": [...]}`, as they are.

    Raises:
        InputError: it is neither, or there are none or too many.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("the request is no JSON") from error
    if isinstance(data, dict) and isinstance(data.get("text"), str):
        labels = tuple(part.strip() for part in re.split(r"[,\n\r]", data["text"]) if part.strip())
    elif isinstance(data, dict) and isinstance(data.get("labels"), list):
        labels = tuple(data["labels"])
        if not all(isinstance(label, str) for label in labels):
            raise InputError("labels are texts")
    else:
        raise InputError('expected {"text": "..."} or {"labels": [...]}')
    if not labels:
        raise InputError("there is no label", fix="type at least one, one a line")
    if len(labels) > MOST_LABELS:
        raise InputError(f"{len(labels)} labels; at most {MOST_LABELS} can be typed here")
    return labels
