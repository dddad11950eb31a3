"""What every record is: frozen, checked, and named by its content."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def content_id(*parts: Any) -> str:
    """16 hex digits of the sha256 of `parts` as canonical JSON: the id of a record with this content."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
