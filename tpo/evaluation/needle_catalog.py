"""Needles and haystacks of your own videos: what was asked about a segment is asked about the segment's clip.

    rejections = cut_needles(root / "needle", queries, videos, videos_root, index_dir, num_haystacks=8)

`queries` and `videos` are what `ask` and `ingest` publish. A clip's wrong options are right answers to other questions
of the same type, so they sound alike, but often repeat what another question asked about: the control without the
needle shows how far that alone leads, and a person should read the questions before numbers are believed. Questions
and videos must be held-out ones: whoever was trained on them has found the needle before.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tpo.evaluation.benchmarks.rows import STAGE
from tpo.progress import progress
from tpo.records import Granularity, Query, QuestionType, Reason, Record, Rejection, Segment, Video, content_id
from tpo.store import write_atomic
from tpo.video.decode import DecodeError
from tpo.video.splice import Part, cut

NUM_OPTIONS = 4
# Of the eight types the one whose answers one frame does not give away.
ASKED = (QuestionType.TEMPORAL_REASONING,)


class ChosenNeedle(Record):
    """A needle that is still a part of its video."""

    id: str
    segment: Segment
    question: str
    options: tuple[str, ...]
    gold: int


def choose_needles(queries: Sequence[Query]) -> tuple[list[ChosenNeedle], list[Rejection]]:
    """The localized questions about order, with options; those that cannot have any are set aside.

    Which options a question has, and in which order, depends on what is asked, not on the order of `queries`.
    """
    localized = [query for query in queries if query.granularity is Granularity.LOCALIZED and query.segment]
    asked = {query.id: query for query in localized if query.question_type in ASKED and query.reference_answer}
    needles: list[ChosenNeedle] = []
    rejections: list[Rejection] = []
    for query in asked.values():
        assert query.segment is not None
        options = _options(query, list(asked.values()))
        if len(options) < NUM_OPTIONS:
            detail = f"{len(options) - 1} other answers to questions of its type, {NUM_OPTIONS - 1} needed as options"
            rejections.append(Rejection(stage=STAGE, item=query.id, reason=Reason.BAD_ITEM, detail=detail))
            continue
        order = sorted(options, key=lambda option: content_id(query.id, option))
        gold = order.index(options[0])
        needles.append(
            ChosenNeedle(id=query.id, segment=query.segment, question=query.question, options=tuple(order), gold=gold)
        )
    return needles, rejections


def _options(query: Query, asked: Sequence[Query]) -> list[str]:
    """The right answer, then right answers to other questions of the type, no two of them the same.

    Another video's answer to the same question is none: it may be as right.
    """
    others = [one for one in asked if one.question_type is query.question_type and one.question != query.question]
    others.sort(key=lambda one: content_id(query.id, one.id))
    answers: dict[str, str] = {}
    for one in (query, *others):
        answer = str(one.reference_answer).strip()
        answers.setdefault(answer.casefold(), answer)
    return list(answers.values())[:NUM_OPTIONS]


def cut_needles(
    folder: Path,
    queries: Sequence[Query],
    videos: Sequence[Video],
    videos_root: Path,
    index_dir: Path,
    num_haystacks: int,
) -> list[Rejection]:
    """Write the folder that `tpo.evaluation.needle` reads: clips, the longest videos as haystacks, `needles.json` last.

    Clips that are there are not written again. Returns what was set aside: questions without options or video, segments
    that cannot be cut out.

    Raises:
        OSError: a file cannot be written.
    """
    by_id = {video.id: video for video in videos}
    chosen, rejections = choose_needles(queries)
    rows = []
    with progress(len(chosen), "cut clips", "clips") as bar:
        for needle in chosen:
            clip = folder / "clips" / f"{needle.id}.mp4"
            unfit = _cut(clip, needle, by_id.get(needle.segment.video_id), videos_root, index_dir)
            if unfit is None:
                row = needle.model_dump(mode="json", exclude={"segment"})
                rows.append({**row, "clip": clip.name, "source": needle.segment.video_id})
            else:
                rejections.append(unfit)
            bar.update()
    (folder / "haystacks").mkdir(parents=True, exist_ok=True)
    for video in sorted(videos, key=lambda video: (-video.duration_s, video.id))[:num_haystacks]:
        _link(videos_root / video.path, folder / "haystacks" / f"{video.id[:16]}{Path(video.path).suffix}")
    write_atomic(folder / "needles.json", json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return rejections


def _cut(clip: Path, needle: ChosenNeedle, video: Video | None, videos_root: Path, index_dir: Path) -> Rejection | None:
    """Write a needle's clip, unless it is there; why that cannot be done, if it cannot."""
    if video is None:
        detail = f"its video {needle.segment.video_id[:12]} is not in the catalog"
        return Rejection(stage=STAGE, item=needle.id, reason=Reason.VIDEO_MISSING, detail=detail)
    try:
        if not clip.is_file():
            end_s = min(needle.segment.end_s, video.duration_s)
            cut(clip, Part(videos_root / video.path, video, needle.segment.start_s, end_s), index_dir)
    except (DecodeError, ValueError) as error:
        return Rejection(stage=STAGE, item=needle.id, reason=Reason.DECODE_FAILED, detail=str(error))
    return None


def _link(video: Path, name: Path) -> None:
    """The same file under another name, or a copy where disks or file systems do not allow that."""
    if name.exists():
        return
    try:
        os.link(video.resolve(), name)
    except OSError:
        partial = name.with_name(f".{name.name}.partial")
        shutil.copyfile(video, partial)
        partial.replace(name)
