"""A needle in a haystack that tests time: short clips put into long videos, at every depth of every length.

    needles, haystacks, rejections = load_needles(root / NAME, prober)
    cases, too_short = plan_needles(params, num_frames, needles, haystacks, seed)
    for case in cases:
        scene = show(case, root / NAME, spliced_dir, prober)
        frames = decode(scene.path, scene.shown.view, prober.index_dir, cache, scene.others)
        …                                             # ask `case.item` about them

needle/needles.json            a list of {"id", "clip", "question", "options", "gold"} and, if known, "source"
needle/clips/<clip>            the needles: what they show must move, and the question must need its order or direction
needle/haystacks/<video>       long videos that show nothing of the kind

The layout is ours. `gold` counts from 0; `source` is the sha256 of the video that a clip was cut from, into which it is
then never put. `tpo.evaluation.needle_catalog` makes such a folder of your own videos.

| mode           | the needle is put into | lengths | tests                                           |
|----------------|------------------------|---------|-------------------------------------------------|
| after_sampling | the sampled frames     | frames  | the model                                       |
| in_video       | the video's file       | minutes | the sampler too, which can miss it: not sampled |

In mode in_video a haystack is cut to its first so many minutes, and the file is encoded anew, at its size and frame
rate; so is the control's, so that encoding makes no difference. In both modes a clip is stretched to the haystack's
size: bars would tell it apart from afar.

Two controls stand beside the cells of a mode: the same questions with the needle absent (what is answered then is
answered from language) and with the needle alone (what is not answered then is a needle that cannot be read).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np

from tpo.errors import UserError
from tpo.evaluation.benchmarks import NEEDLES
from tpo.evaluation.benchmarks.defects import with_defects
from tpo.evaluation.benchmarks.rows import STAGE, BadRowError, Row, check_path, check_text, collect
from tpo.params import NeedleMode, NeedleParams
from tpo.progress import progress
from tpo.records import Item, NeedleShown, Reason, Record, Rejection, Video, View, content_id
from tpo.video.decode import errors_named
from tpo.video.measure import DamagedError, load_index
from tpo.video.probe import Prober
from tpo.video.sample import dense, needle_inserted
from tpo.video.splice import Part, splice

NAME = NEEDLES
LAYOUT = "needle/needles.json, needle/clips/ and needle/haystacks/"
_MIN_CHANGE = 0.3  # grey levels from one sampled picture to the next: as `ingest` calls a video static, as shipped
_EDGE_S = 0.6e-3  # views and containers round to milliseconds


class Control(StrEnum):
    ABSENT = "needle_absent"
    ALONE = "needle_alone"


class Needle(Record):
    """A clip and what is asked about it. The item's `video` is the clip."""

    item: Item
    clip: Video
    source: str | None = None


class NeedleCase(Record):
    """One question about one needle in one haystack, or in none.

    `item.id` is its own, `item.category` the mode (with its control), `item.duration_group` the length in words.
    """

    item: Item
    mode: NeedleMode
    num_frames: int
    needle_frames: int
    length: float | None = None
    depth: float | None = None
    control: Control | None = None
    needle: Needle
    haystack: Video | None = None


@dataclass(frozen=True)
class Scene:
    """What to decode for a case: `decode(scene.path, scene.shown.view, index_dir, cache, scene.others)`."""

    shown: NeedleShown
    others: dict[str, Path] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path(self.shown.path)


class _Row(Row):
    id: str
    clip: str
    question: str
    options: tuple[str, ...]
    gold: int
    source: str | None = None


def load_needles(folder: Path, prober: Prober) -> tuple[list[Needle], list[Video], list[Rejection]]:
    """The needles and haystacks of a folder that can be used, and what is set aside. Every video is measured.

    Raises:
        UserError: there is no `needles.json` or it is damaged, or no needle or no haystack is usable.
    """
    items, sources, rejections = _read(folder)
    with progress(len(items), "look at clips", "clips", patient=True) as bar:
        clips = []
        for item in items:
            clips.append((item, _check_clip(folder, item, prober)))
            bar.update()
    needles = [Needle(item=item, clip=clip, source=sources[item.id]) for item, clip in clips if isinstance(clip, Video)]
    rejections += [clip for _, clip in clips if isinstance(clip, Rejection)]
    haystacks, unusable = _load_haystacks(folder, prober)
    rejections += unusable
    for what, usable in (("needle", needles), ("haystack", haystacks)):
        if not usable:
            why = f" The first that was set aside: {rejections[0].item}: {rejections[0].detail}" if rejections else ""
            raise UserError(f"No usable {what} in {folder}. Expected: {LAYOUT}.{why}")
    return needles, haystacks, rejections


def find_questions(folder: Path) -> tuple[dict[str, Item], str]:
    """The questions of a folder by their ids, or none and what is the matter: for work that does without videos."""
    try:
        return {item.id: item for item in _read(folder)[0]}, ""
    except UserError as error:
        return {}, str(error)


def _read(folder: Path) -> tuple[list[Item], dict[str, str | None], list[Rejection]]:
    """The questions of `needles.json`, the video that each needle was cut from, and rows that are set aside."""
    file = folder / "needles.json"
    if not file.is_file():
        raise UserError(
            f"{folder} has no {file.name}. Expected: {LAYOUT}. `tpo needles` makes such a folder of your held-out "
            "videos; without one, set evaluate.needle to null."
        )
    sources: dict[str, str | None] = {}

    def to_item(row: _Row, _number: int) -> Item:
        question, options = check_text(row.question, row.options, row.gold)
        item = _item(f"{NAME}/{row.id}", check_path(f"clips/{row.clip}"), question, options, row.gold)
        if defects := with_defects(item).defects:  # these files are the user's own, and can be put right
            raise BadRowError(defects[0])
        sources.setdefault(item.id, row.source)
        return item

    items, rejections = collect(NAME, file, _Row, to_item)
    return items, sources, rejections


def _load_haystacks(folder: Path, prober: Prober) -> tuple[list[Video], list[Rejection]]:
    haystacks: dict[str, Video] = {}
    rejections = []
    paths = sorted(path for path in (folder / "haystacks").glob("*") if not path.name.startswith("."))
    with progress(len(paths), "look at haystacks", "videos", patient=True) as bar:
        for path in paths:
            video = prober.probe(folder, path)
            if isinstance(video, Rejection):
                rejections.append(_set_aside(video.item, video.reason, video.detail))
            elif (first := haystacks.setdefault(video.id, video)) is not video:
                rejections.append(_set_aside(video.path, Reason.DUPLICATE, f"the same bytes as {first.path}"))
            bar.update()
    return list(haystacks.values()), rejections


def _item(item_id: str, video: str, question: str, options: tuple[str, ...], gold: int) -> Item:
    return Item(
        id=item_id,
        benchmark=NAME,
        video=video,
        question=question,
        options=options,
        gold=gold,
        duration_group="clip",
        category=NAME,
    )


def _check_clip(folder: Path, item: Item, prober: Prober) -> Video | Rejection:
    path = folder / item.video
    if not path.exists():
        return _set_aside(item.video, Reason.VIDEO_MISSING, "there is no such file")
    clip = prober.probe(folder, path)
    if isinstance(clip, Rejection):
        return _set_aside(item.video, clip.reason, clip.detail)
    if clip.num_frames < 2 or clip.change < _MIN_CHANGE:
        found = f"change is {clip.change:g} over {clip.num_frames} frame(s)"
        detail = f"{found}, at least {_MIN_CHANGE:g} wanted: a needle must move"
        return _set_aside(item.video, Reason.STATIC, detail)
    return clip


def _set_aside(path: str, reason: Reason, detail: str) -> Rejection:
    return Rejection(stage=STAGE, item=f"{NAME}/{path}", reason=reason, detail=detail)


def plan_needles(
    params: NeedleParams, num_frames: int, needles: Sequence[Needle], haystacks: Sequence[Video], seed: int
) -> tuple[list[NeedleCase], list[Rejection]]:
    """Every case of the test, and which haystacks are too short for which lengths.

    All depths of a length have the same questions in the same haystacks, so that between them only the depth differs;
    so have the lengths, as far as the haystacks are long enough. Which these are depends on the seed and on what the
    needles and haystacks are, not on their order. A haystack is never the video that the needle was cut from. Cells
    have `per_cell` questions, or as many as there are pairs of a needle and a haystack.

    Args:
        num_frames: in_video: how many frames are sampled, as for every benchmark.

    Raises:
        UserError: a length has no haystack that is long enough, or only ones that already hold the needles.
    """
    cases: list[NeedleCase] = []
    rejections: list[Rejection] = []
    for mode in params.modes:
        lengths: Sequence[float] = params.num_frames if mode == "after_sampling" else params.minutes
        asked: dict[str, Needle] = {}
        for length in lengths:
            long_enough = [haystack for haystack in haystacks if _reaches(haystack, mode, length)]
            rejections += [_too_short(one, mode, length) for one in haystacks if one not in long_enough]
            pairs = list(_pairs(needles, long_enough, seed))[: params.per_cell]
            if not pairs:
                raise UserError(_nothing_to_plan(mode, length, long_enough, haystacks))
            asked.update({needle.item.id: needle for needle, _ in pairs})
            frames = int(length) if mode == "after_sampling" else num_frames
            for depth in (*params.depths, None):
                cases += [_case(params, mode, frames, needle, haystack, length, depth) for needle, haystack in pairs]
        alone = params.needle_frames if mode == "after_sampling" else num_frames
        cases += [_case(params, mode, alone, needle) for needle in asked.values()]
    return cases, rejections


def length_name(mode: NeedleMode, length: float) -> str:
    return f"{length:g} frames" if mode == "after_sampling" else f"{length:g} min"


def _reaches(haystack: Video, mode: NeedleMode, length: float) -> bool:
    return haystack.num_frames >= length if mode == "after_sampling" else haystack.duration_s >= length * 60


def _too_short(haystack: Video, mode: NeedleMode, length: float) -> Rejection:
    found = f"{haystack.num_frames} frames" if mode == "after_sampling" else f"{haystack.duration_s / 60:.2f} min"
    detail = f"it has {found}, too few for {length_name(mode, length)}; it serves shorter lengths"
    return _set_aside(haystack.path, Reason.TOO_SHORT, detail)


def _nothing_to_plan(mode: NeedleMode, length: float, long_enough: Sequence[Video], haystacks: Sequence[Video]) -> str:
    if long_enough:
        return "Every needle was cut from every haystack there is. Put other videos into needle/haystacks."
    most = max(haystacks, key=lambda one: one.num_frames if mode == "after_sampling" else one.duration_s)
    longest = f"{most.path} has {most.num_frames} frames, {most.duration_s / 60:.2f} min"
    name = "num_frames" if mode == "after_sampling" else "minutes"
    return (
        f"No haystack is long enough for {length_name(mode, length)}: {longest}. "
        f"Put longer videos into needle/haystacks or lower evaluate.needle.{name}."
    )


def _pairs(needles: Sequence[Needle], haystacks: Sequence[Video], seed: int) -> Iterator[tuple[Needle, Video]]:
    """Needles in turn, each time round in the next haystack, so that both come up equally often."""
    needles = sorted(needles, key=lambda needle: content_id(seed, needle.item.id, needle.clip.id))
    haystacks = sorted(haystacks, key=lambda haystack: content_id(seed, haystack.id))
    for turn in range(len(haystacks)):
        for number, needle in enumerate(needles):
            haystack = haystacks[(number + turn) % len(haystacks)]
            if haystack.id not in (needle.source, needle.clip.id):
                yield needle, haystack


def _case(
    params: NeedleParams,
    mode: NeedleMode,
    num_frames: int,
    needle: Needle,
    haystack: Video | None = None,
    length: float | None = None,
    depth: float | None = None,
) -> NeedleCase:
    """Without a depth the needle is absent, without a haystack it is alone."""
    control = None
    if depth is None:
        control = Control.ABSENT if haystack else Control.ALONE
    where = [f"{length:g}" if length else None, control or f"{depth:g}", haystack.id[:12] if haystack else None]
    name = "/".join([NAME, mode, *(part for part in where if part), needle.item.id.removeprefix(f"{NAME}/")])
    changes = {
        "id": name,
        "video": haystack.path if haystack else needle.item.video,
        "duration_group": length_name(mode, length) if length else "clip",
        "category": f"{mode} {control}" if control else mode,
    }
    return NeedleCase(
        item=needle.item.model_copy(update=changes),
        mode=mode,
        num_frames=num_frames,
        needle_frames=params.needle_frames,
        length=length,
        depth=depth,
        control=control,
        needle=needle,
        haystack=haystack,
    )


def read_case_id(case_id: str) -> tuple[str, str]:
    """Where the needle of a case is, as a depth from 0 to 1 or a `Control`, and the id of its question."""
    _, _, length_or_alone, *others = case_id.split("/", 3)
    if length_or_alone == Control.ALONE:
        return length_or_alone, f"{NAME}/{others[0]}"
    where, _, needle = others[0].split("/", 2)
    return where, f"{NAME}/{needle}"


def show(case: NeedleCase, folder: Path, spliced_dir: Path, prober: Prober) -> Scene:
    """What a model is shown in a case. In mode in_video the file is written to `spliced_dir`, if it is not there.

    Raises:
        DecodeError: a video cannot be decoded, or is not the one that was measured.
        OSError: the file cannot be written.
    """
    if case.haystack is None:
        path, video = folder / case.needle.clip.path, case.needle.clip
        return _scene(case, path, dense(video, case.num_frames), prober, 0.0, video.duration_s)
    if case.mode == "in_video":
        return _show_in_video(case, case.haystack, folder, spliced_dir, prober)
    path = folder / case.haystack.path
    if case.depth is None:
        return _nothing_of_it(case, path, dense(case.haystack, case.num_frames))
    view = needle_inserted(case.haystack, case.needle.clip, case.num_frames, case.needle_frames, case.depth)
    shown = NeedleShown(
        item_id=case.item.id,
        path=path.as_posix(),
        view=view,
        positions=tuple(frame.position for frame in view.distractors),
        needle_s=tuple(frame.timestamp_s for frame in view.distractors),
    )
    return Scene(shown, {case.needle.clip.id: folder / case.needle.clip.path})


def _show_in_video(case: NeedleCase, haystack: Video, folder: Path, spliced_dir: Path, prober: Prober) -> Scene:
    assert case.length is not None
    end_s, clip = case.length * 60, case.needle.clip
    hay, before_s = folder / haystack.path, end_s * (case.depth or 0)
    parts = [(0.0, before_s), (before_s, end_s)] if case.depth is not None else [(0.0, end_s)]
    pieces = [Part(hay, haystack, start_s, stop_s) for start_s, stop_s in parts if stop_s > start_s]
    at = 1 if before_s else 0
    if case.depth is not None:
        pieces.insert(at, Part(folder / clip.path, clip, 0.0, clip.duration_s))
    spliced = splice(spliced_dir, pieces, haystack, prober.index_dir)
    video = prober.probe(spliced_dir, spliced.path)
    with errors_named(spliced.path):
        if isinstance(video, Rejection):
            raise DamagedError(f"{video.detail}. Delete it, so that it is written again")
    view = dense(video, case.num_frames)
    if case.depth is None:
        return _nothing_of_it(case, spliced.path, view)
    return _scene(case, spliced.path, view, prober, *spliced.bounds_s[at : at + 2])


def _nothing_of_it(case: NeedleCase, path: Path, view: View) -> Scene:
    return Scene(NeedleShown(item_id=case.item.id, path=path.as_posix(), view=view, positions=(), needle_s=()))


def _scene(case: NeedleCase, path: Path, view: View, prober: Prober, start_s: float, end_s: float) -> Scene:
    """A file that shows the needle from `start_s` up to, not including, `end_s`: which frames of the view are of it."""
    with errors_named(path):
        index = load_index(prober.index_dir, path, view.video_id)
    times_s = index.timestamps_s[index.on_display(np.array(view.timestamps_s))]
    inside = [at for at, time_s in enumerate(times_s) if start_s - _EDGE_S <= time_s < end_s - _EDGE_S]
    needle_s = tuple(round(max(0.0, float(times_s[at]) - start_s), 3) for at in inside)
    return Scene(
        NeedleShown(item_id=case.item.id, path=path.as_posix(), view=view, positions=tuple(inside), needle_s=needle_s)
    )
