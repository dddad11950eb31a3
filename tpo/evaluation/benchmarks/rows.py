"""What the loaders share: reading a file of rows, checking one row, setting aside what cannot be asked."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from tpo.errors import UserError
from tpo.evaluation.benchmarks.defects import FEW_OPTIONS, with_defects
from tpo.records import Item, Reason, Rejection

STAGE = "evaluate"
# A model would read these as its own placeholders and turns, not as text.
_CONTROL_TOKEN = re.compile(r"<\|[^|<>]*\|>|<(?:image|video)>")
_MAX_PATH_BYTES = 255

Loaded = tuple[list[Item], list[Rejection]]
R = TypeVar("R", bound="Row")
K = TypeVar("K", int, str)


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


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever is wrong with the file that is read meanwhile is a `UserError` that names it."""
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:  # JSON, Unicode and Arrow errors are all ValueErrors
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}. Download it again.") from error


def read_rows(path: Path) -> list[Any]:
    """The rows of a JSON list or a parquet file.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    with reading(path):
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise UserError(f"{path} holds a JSON {type(rows).__name__}, expected a list of rows. Download it again.")
    return rows


def read_object(path: Path) -> dict[str, Any]:
    """The content of a file that is one JSON object.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    with reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a JSON {type(content).__name__}, expected an object. Download it again.")
    return content


def collect(benchmark: str, file: Path, kind: type[R], to_item: Callable[[R, int], Item]) -> Loaded:
    """Make an `Item` of each row of `file` (numbered from 0), or a `Rejection` named `<benchmark>/<file>:<row>`."""
    return make_items(f"{benchmark}/{file.name}", enumerate(read_rows(file)), kind, to_item)


def make_items(file: str, rows: Iterable[tuple[K, Any]], kind: type[R], to_item: Callable[[R, K], Item]) -> Loaded:
    """`collect` for files that are not a list of rows: each row comes with its name within `file`.

    What is wrong with the options of an item that can be asked all the same is added to its defects.
    """
    items: dict[str, Item] = {}
    rejections = []
    for name, raw in rows:
        problem = ""
        try:
            item = with_defects(to_item(kind.model_validate(raw), name))
        except ValidationError as error:
            problem = _first_problem(error)
        except BadRowError as error:
            problem = str(error)
        else:
            if item.id in items:
                problem = f"an earlier row has the id {item.id} too"
        if problem:
            detail = f"{problem}. Download {file.split('/')[-1]} again; if it says so there too, this cannot be asked."
            rejections.append(Rejection(stage=STAGE, item=f"{file}:{name}", reason=Reason.BAD_ITEM, detail=detail))
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


def check_path(name: str, of: str = "the video's path") -> str:
    """`name`, if it is a plain relative path that stays in its folder. `of` says what it is, in errors.

    Raises:
        BadRowError: it is absolute, climbs out with "..", or is no usable file name.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise BadRowError(f"{of} leaves the benchmark's folder: {name[:200]!r}")
    if not name.isprintable() or len(name.encode()) > _MAX_PATH_BYTES or name.endswith("/"):
        raise BadRowError(f"{of} is not usable: {name[:200]!r}")
    return path.as_posix()


def find_video(folder: Path, *names: str) -> str:
    """The first of `names` that is a file of `folder`, else the first of them.

    Raises:
        BadRowError: see `check_path`.
    """
    checked = [check_path(name) for name in names]
    return next((name for name in checked if (folder / name).is_file()), checked[0])


def check_text(question: str, options: Sequence[str] = (), gold: int | None = None) -> tuple[str, tuple[str, ...]]:
    """Question and options as they stand in the file, white space included, if they can be asked.

    Raises:
        BadRowError: the question is empty, a text would be read as a model's control token, there are more options
            than letters, or the gold answer is none of them.
    """
    if not question.strip():
        raise BadRowError("the question is empty")
    if len(options) > len(ascii_uppercase):
        raise BadRowError(f"there are {len(options)} options, more than letters")
    if gold is not None and not 0 <= gold < len(options):
        raise BadRowError(f"the gold answer is option {gold}, but there are {len(options)} options")
    for text in (question, *options):
        if token := _CONTROL_TOKEN.search(text):
            raise BadRowError(f"the text {token[0]!r} would be read as a model's control token")
    return question, tuple(options)


def check_count(options: Sequence[str], usual: Sequence[int]) -> tuple[str, ...]:
    """The defect of having fewer options than any of the `usual` counts of this benchmark, if so.

    Raises:
        BadRowError: there are more than usual, so the file is another one than it seems, or there is nothing to choose.
    """
    if len(options) > max(usual) or len(options) < 2:
        expected = " or ".join(map(str, usual))
        raise BadRowError(f"there {_are(len(options))}, this benchmark's questions have {expected}")
    return (FEW_OPTIONS,) if len(options) < min(usual) else ()


def _are(num_options: int) -> str:
    return "is 1 option" if num_options == 1 else f"are {num_options} options"
