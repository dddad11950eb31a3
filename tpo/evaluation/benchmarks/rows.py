"""What the three loaders share: reading a file of rows, checking one row, setting bad rows aside."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from tpo.errors import UserError
from tpo.records import Item, Reason, Rejection

STAGE = "evaluate"
# A model would read these as its own placeholders and turns, not as text.
_CONTROL_TOKEN = re.compile(r"<\|[^|<>]*\|>|<(?:image|video)>")
_MAX_PATH_BYTES = 255

Loaded = tuple[list[Item], list[Rejection]]
R = TypeVar("R", bound="Row")


class BadRowError(ValueError):
    """A row that no question can be made of; the text says why."""


class Row(BaseModel):
    """A row as downloaded. Subclasses name the official columns that are used; others are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: Any) -> Any:
        """JSON can spell half characters ("\\ud800"); they cannot be written down again."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                text.encode()  # UnicodeEncodeError is a ValueError
        return value


def read_rows(path: Path) -> list[Any]:
    """The rows of a JSON list or a parquet file.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # JSON, Unicode and Arrow errors are all ValueErrors
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}. Download it again.") from error
    if not isinstance(rows, list):
        raise UserError(f"{path} holds a JSON {type(rows).__name__}, expected a list of rows. Download it again.")
    return rows


def collect(benchmark: str, file: Path, kind: type[R], to_item: Callable[[R, int], Item]) -> Loaded:
    """Make an `Item` of each row of `file` (numbered from 0), or a `Rejection` named `<benchmark>/<file>:<row>`."""
    items: dict[str, Item] = {}
    rejections = []
    for number, raw in enumerate(read_rows(file)):
        problem = ""
        try:
            item = to_item(kind.model_validate(raw), number)
        except ValidationError as error:
            problem = _first_problem(error)
        except BadRowError as error:
            problem = str(error)
        else:
            if item.id in items:
                problem = f"an earlier row has the id {item.id} too"
        if problem:
            name = f"{benchmark}/{file.name}:{number}"
            rejections.append(Rejection(stage=STAGE, item=name, reason=Reason.BAD_ITEM, detail=problem))
        else:
            items[item.id] = item
    return list(items.values()), rejections


def join(parts: Iterable[Loaded]) -> Loaded:
    loaded = list(parts)
    return [item for items, _ in loaded for item in items], [bad for _, rejections in loaded for bad in rejections]


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def check_path(name: str) -> str:
    """`name`, if it is a plain relative path that stays in its folder.

    Raises:
        BadRowError: it is absolute, climbs out with "..", or is no usable file name.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise BadRowError(f"the video's path leaves the benchmark's folder: {name[:200]!r}")
    if not name.isprintable() or len(name.encode()) > _MAX_PATH_BYTES:
        raise BadRowError(f"the video's path is not usable: {name[:200]!r}")
    return path.as_posix()


def check_text(question: str, options: Sequence[str], gold: int) -> tuple[str, tuple[str, ...]]:
    """Question and options without outer white space, if they can be asked and scored.

    Raises:
        BadRowError: something is empty, would be read as a model's control token, or the gold answer is no option or
            is there twice, so that a right answer would count as wrong.
    """
    question, options = question.strip(), tuple(option.strip() for option in options)
    if not question:
        raise BadRowError("the question is empty")
    for number, option in enumerate(options):
        if not option:
            raise BadRowError(f"option {number} is empty")
    if len(options) > len(ascii_uppercase):
        raise BadRowError(f"there are {len(options)} options, more than letters")
    if not 0 <= gold < len(options):
        raise BadRowError(f"the gold answer is option {gold}, but there are {len(options)} options")
    if options.count(options[gold]) > 1:
        raise BadRowError(f"the gold answer is there twice: {options[gold][:200]!r}")
    for text in (question, *options):
        if token := _CONTROL_TOKEN.search(text):
            raise BadRowError(f"the text {token[0]!r} would be read as a model's control token")
    return question, options
