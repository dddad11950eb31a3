"""Preference pairs in and out, in the formats of other trainers and of the paper's published data.

rows, rejections = read_rows(Path("dataset.csv"), "csv")
pairs, more = import_pairs(rows, videos, full_frames=32, source="dataset.csv")
text = write_rows([row_of(pair, path) for …], "llama-factory")
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from tpo.curation.formats import csv_table, json_forms
from tpo.curation.formats.rows import BadRowError, Row, checked
from tpo.errors import UserError
from tpo.records import PreferencePair, Reason, Rejection, Video, content_id
from tpo.video.sample import dense

STAGE = "judge"  # whose output imported pairs take the place of
FORMS = ("csv", *json_forms.FORMS)


def read_rows(path: Path, form: str, columns: Mapping[str, str] | None = None) -> tuple[list[Row], list[Rejection]]:
    """The pairs in a file, and the rows that are none, each with its number.

    Args:
        columns: of a CSV file: what its columns are, by their name there.

    Raises:
        UserError: the file cannot be read, or is not of this form as a whole.
    """
    rows: list[Row] = []
    rejections: list[Rejection] = []
    try:
        for number, found in _entries(path, form, columns or {}):
            try:
                if isinstance(found, BadRowError):
                    raise found
                rows.append(checked(found))
            except BadRowError as error:
                rejections.append(_rejection(path.name, number, error.reason, str(error)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}. Expected a file in UTF-8.") from error
    return rows, rejections


def write_rows(rows: Sequence[Row], form: str) -> str:
    """The text of a file in a form."""
    return csv_table.write(rows) if form == "csv" else json_forms.write(rows, json_forms.FORMS[form])


def row_of(number: int, pair: PreferencePair, video: Video) -> Row:
    return Row(
        number=number,
        video=video.path,
        question=pair.question,
        chosen=pair.chosen,
        rejected=pair.rejected,
        granularity=pair.granularity,
        question_type=pair.question_type,
    )


def import_pairs(
    rows: Sequence[Row], videos: Sequence[Video], full_frames: int, source: str
) -> tuple[list[PreferencePair], list[Rejection]]:
    """Pairs of ours, trained with the full view of their video; what a file does not hold is none.

    A video is found by its path below the videos folder, else by its file name or its name without the ending where
    only one video has that.
    """
    by_name = _names(videos)
    pairs: dict[str, PreferencePair] = {}
    rejections: list[Rejection] = []
    for row in rows:
        video = by_name.get(row.video) or by_name.get(PurePosixPath(row.video.replace("\\", "/")).name)
        if video is None:
            detail = f"{row.video!r} is not in the catalog, or several videos have that name"
            rejections.append(_rejection(source, row.number, Reason.VIDEO_MISSING, detail))
            continue
        pair = _pair(row, video, full_frames, source)
        if pair.id in pairs:
            rejections.append(_rejection(source, row.number, Reason.DUPLICATE, "the same pair occurs before"))
        else:
            pairs[pair.id] = pair
    return list(pairs.values()), rejections


def _entries(path: Path, form: str, columns: Mapping[str, str]) -> Iterator[tuple[int, Row | BadRowError]]:
    return csv_table.read(path, columns) if form == "csv" else json_forms.read(path, json_forms.FORMS[form])


def _names(videos: Sequence[Video]) -> dict[str, Video]:
    """Videos by path, and by each shorter name that is theirs alone."""
    named: dict[str, list[Video]] = {}
    for video in videos:
        path = PurePosixPath(video.path)
        for name in {path.name, path.stem, str(path.with_suffix(""))} - {video.path}:
            named.setdefault(name, []).append(video)
    alone = {name: found[0] for name, found in named.items() if len(found) == 1}
    return alone | {video.path: video for video in videos}


def _pair(row: Row, video: Video, full_frames: int, source: str) -> PreferencePair:
    query_id = content_id(video.id, row.question)
    return PreferencePair(
        id=content_id(query_id, row.chosen, row.rejected),
        video_id=video.id,
        query_id=query_id,
        granularity=row.granularity,
        question_type=row.question_type,
        question=row.question,
        view=dense(video, full_frames),
        chosen=row.chosen,
        rejected=row.rejected,
        chosen_tokens=None,
        rejected_tokens=None,
        chosen_view=None,
        rejected_view=None,
        segment=None,
        model_id=f"imported from {source}",
        verdicts=(),
        judge="none: imported",
    )


def _rejection(source: str, number: int, reason: Reason, detail: str) -> Rejection:
    return Rejection(stage=STAGE, item=f"{source}#{number}", reason=reason, detail=detail)
