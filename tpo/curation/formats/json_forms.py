"""Preference data in the JSON of other trainers, one function each way for one record.

| form          | source                                                                               |
|---------------|--------------------------------------------------------------------------------------|
| llava-next    | LLaVA-NeXT, train_dpo.py: `video`, `prompt`, `chosen`, `rejected`, `answer`, `id`    |
| llama-factory | LLaMA-Factory, data/README.md, sharegpt preference format, with `videos`             |
| ms-swift      | ms-swift, custom data sets, RLHF: `messages`, `rejected_response`, `videos`          |
| trl           | TRL, preference with explicit prompt, conversational; `videos` is ours: TRL takes no |
|               | video yet (huggingface/trl#4002)                                                     |

Further keys of ours (`granularity`, `question_type`) are beside them; the tools overlook what they do not know.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tpo.curation.formats.rows import BadRowError, Row, plain, without_placeholder
from tpo.errors import UserError

Fields = dict[str, Any]
_NO_JSON = (ValueError, RecursionError)  # also numbers of too many digits, and lists too deep in lists


class JsonForm(NamedTuple):
    """How one record is read and written; `in_lines` = JSON Lines rather than one list."""

    from_record: Callable[[Mapping[str, Any]], Fields]
    to_record: Callable[[Row], Fields]
    in_lines: bool


def _from_llava_next(record: Mapping[str, Any]) -> Fields:
    return {
        "video": _text(record, "video"),
        "question": without_placeholder(_text(record, "prompt")),
        "chosen": _text(record, "chosen"),
        "rejected": _text(record, "rejected"),
    }


def _to_llava_next(row: Row) -> Fields:
    # Its trainer puts the placeholder there itself, and wants `answer` to sort by length.
    return {
        "id": str(row.number), "video": row.video, "prompt": plain(row.question), "chosen": plain(row.chosen),
        "rejected": plain(row.rejected), "answer": plain(row.chosen),
    }  # fmt: skip


def _from_llama_factory(record: Mapping[str, Any]) -> Fields:
    turns = _list(record, "conversations")
    if len(turns) != 1 or turns[0].get("from") != "human":
        raise BadRowError(f"{len(turns)} turns before the answers; expected one, from the human")
    return {
        "video": _only_video(record),
        "question": without_placeholder(_text(turns[0], "value")),
        "chosen": _text(_dict(record, "chosen"), "value"),
        "rejected": _text(_dict(record, "rejected"), "value"),
    }


def _to_llama_factory(row: Row) -> Fields:
    return {
        "conversations": [{"from": "human", "value": f"<video>{plain(row.question)}"}],
        "chosen": {"from": "gpt", "value": plain(row.chosen)},
        "rejected": {"from": "gpt", "value": plain(row.rejected)},
        "videos": [row.video],
    }


def _from_ms_swift(record: Mapping[str, Any]) -> Fields:
    turns = [turn for turn in _list(record, "messages") if turn.get("role") != "system"]
    if [turn.get("role") for turn in turns] != ["user", "assistant"]:
        raise BadRowError(f"{len(turns)} turns; expected one of the user and one of the assistant")
    return {
        "video": _only_video(record),
        "question": without_placeholder(_text(turns[0], "content")),
        "chosen": _text(turns[1], "content"),
        "rejected": _text(record, "rejected_response"),
    }


def _to_ms_swift(row: Row) -> Fields:
    return {
        "messages": [
            {"role": "user", "content": f"<video>{plain(row.question)}"},
            {"role": "assistant", "content": plain(row.chosen)},
        ],
        "rejected_response": plain(row.rejected),
        "videos": [row.video],
    }


def _from_trl(record: Mapping[str, Any]) -> Fields:
    turns = [turn for turn in _list(record, "prompt") if turn.get("role") != "system"]
    if [turn.get("role") for turn in turns] != ["user"]:
        raise BadRowError(f"{len(turns)} turns in the prompt; expected one of the user")
    answers = {}
    for name in ("chosen", "rejected"):
        said = _list(record, name)
        if [turn.get("role") for turn in said] != ["assistant"]:
            raise BadRowError(f"{len(said)} turns in {name}; expected one of the assistant")
        answers[name] = _content(said[0], most_media=0)
    question = without_placeholder(_content(turns[0], most_media=1))
    return {"video": _only_video(record), "question": question, **answers}


def _to_trl(row: Row) -> Fields:
    def said(text: str) -> list[Fields]:
        return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]

    asked = [{"type": "video", "text": None}, {"type": "text", "text": plain(row.question)}]
    return {
        "prompt": [{"role": "user", "content": asked}],
        "chosen": said(plain(row.chosen)),
        "rejected": said(plain(row.rejected)),
        "videos": [row.video],
    }


FORMS = {
    "llava-next": JsonForm(_from_llava_next, _to_llava_next, in_lines=False),
    "llama-factory": JsonForm(_from_llama_factory, _to_llama_factory, in_lines=False),
    "ms-swift": JsonForm(_from_ms_swift, _to_ms_swift, in_lines=True),
    "trl": JsonForm(_from_trl, _to_trl, in_lines=True),
}


def read(path: Path, form: JsonForm) -> Iterator[tuple[int, Row | BadRowError]]:
    """Each record with its number. A file may be a list or JSON Lines, whatever the form's own tool writes."""
    for number, record in _records(path):
        if isinstance(record, BadRowError):
            yield number, record
            continue
        if not isinstance(record, dict):
            yield number, BadRowError(f"expected an object, got {str(record)[:80]!r}")
            continue
        try:
            kept = {name: record.get(name) for name in ("granularity", "question_type")}
            yield number, Row.model_validate(form.from_record(record) | kept | {"number": number})
        except BadRowError as error:
            yield number, error
        except (ValueError, AttributeError, RecursionError) as error:
            yield number, BadRowError(" ".join(str(error).split())[:200])


def write(rows: Sequence[Row], form: JsonForm) -> str:
    records = []
    for row in rows:
        ours = row.model_dump(mode="json", include={"granularity", "question_type"}, exclude_none=True)
        records.append(form.to_record(row) | ours)
    if form.in_lines:
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return json.dumps(records, ensure_ascii=False, indent=1) + "\n"


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), start=1)
        except _NO_JSON as error:
            raise UserError(f"{path} begins like a JSON list and is none: {error}") from error
        return
    # Not splitlines(): JSON may hold other line separators as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except _NO_JSON as error:
                yield number, BadRowError(f"no JSON: {error}")


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise BadRowError(f"{name} should be text, is {str(value)[:80]!r}")
    return value


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list):
        raise BadRowError(f"{name} should be a list, is {str(value)[:80]!r}")
    return value


def _dict(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    if not isinstance(value, dict):
        raise BadRowError(f"{name} should be an object, is {str(value)[:80]!r}")
    return value


def _only_video(record: Mapping[str, Any]) -> str:
    value = record.get("videos")
    videos = [value] if isinstance(value, str) else value
    if not isinstance(videos, list) or len(videos) != 1 or not isinstance(videos[0], str):
        raise BadRowError(f"videos should be one path, is {str(value)[:80]!r}")
    return videos[0]


def _content(turn: Mapping[str, Any], most_media: int) -> str:
    """Text of a message, given as it is or in parts, of which so many may be something else than text."""
    value = turn.get("content")
    if not isinstance(value, list):
        return _text(turn, "content")
    texts = [part for part in value if part.get("type") == "text"]
    if len(value) - len(texts) > most_media:
        raise BadRowError(f"{len(value) - len(texts)} parts of a message are no text; expected {most_media} at most")
    return "".join(_text(part, "text") for part in texts)
