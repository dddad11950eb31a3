"""The needle test as part of `evaluate`: which clip goes where, the files that hold them, and how it came out."""

from collections.abc import Sequence
from pathlib import Path

from flows.frames import FRAME_CACHE, INDEXES, prober
from flows.stage import JOURNALS, Done, Stage, of_kind, stage_task
from tpo.evaluation.asking import Job, plan_needle
from tpo.evaluation.benchmarks.rows import STAGE
from tpo.evaluation.needle import NAME, NeedleCase, load_needles, plan_needles, show
from tpo.evaluation.scoring import predict_failure
from tpo.params import Params
from tpo.records import NeedleShown, Prediction, PredictionStatus, Reason, Rejection, Role, Video
from tpo.video.decode import DecodeError, VideoFolder
from tpo.video.frame_cache import FrameCache

SPLICED = JOURNALS / "needles"


@stage_task("put needles into haystacks")
def show_cases(cases: list[NeedleCase], params: Params) -> Done:
    """What a model is shown in each case; in mode in_video the file is written, unless it is there."""
    return [(_name(case), [_show(case, params)]) for case in cases]


def _name(case: NeedleCase) -> str:
    return f"show {case.item.id}"


def _show(case: NeedleCase, params: Params) -> NeedleShown | Rejection:
    try:
        return show(case, params.data.benchmarks / NAME, SPLICED, prober(params.ingest.probe)).shown
    except DecodeError as error:
        return Rejection(stage=STAGE, item=case.item.id, reason=Reason.DECODE_FAILED, detail=str(error))


def plan_cases(params: Params) -> tuple[list[NeedleCase], list[Rejection]]:
    """Every case of the needle test, and the needles and haystacks that are set aside; nothing if it is not wanted."""
    settings = params.evaluate
    if settings.needle is None:
        return [], []
    folder = params.data.benchmarks / NAME
    needles, haystacks, rejections = load_needles(folder, prober(params.ingest.probe))
    cases, too_short = plan_needles(settings.needle, settings.num_frames, needles, haystacks, params.data.seed)
    return cases, rejections + too_short


def needle_jobs(
    stage: Stage, cases: Sequence[NeedleCase], params: Params
) -> tuple[list[Job], list[NeedleShown], list[Rejection]]:
    """What is asked in each case that can be shown, what is shown there, and which cannot be shown."""
    per_task = params.runtime.items_per_task
    found = stage.map(show_cases, cases, _name, per_task, params, what="hiding", unit="needles")
    by_id = {case.item.id: case for case in cases}
    shown = of_kind(found, NeedleShown)
    wanted = {Path(one.path) for one in shown}
    for spliced in SPLICED.glob("*.mp4"):  # gigabytes that earlier plans asked for
        if spliced not in wanted:
            spliced.unlink()
    jobs = [
        plan_needle(case.item, case.haystack or case.needle.clip, one.path, one.view, params.evaluate)
        for one in shown
        for case in [by_id[one.item_id]]
    ]
    return jobs, shown, of_kind(found, Rejection)


def not_found(cases: Sequence[NeedleCase], role: Role, not_shown: Sequence[Rejection]) -> list[Prediction]:
    """Of cases that cannot be shown: wrong."""
    why = {one.item: one.detail for one in not_shown}
    broken = PredictionStatus.VIDEO_BROKEN
    return [predict_failure(one.item, role, broken, why[one.item.id]) for one in cases if one.item.id in why]


def needle_folder(cases: Sequence[NeedleCase], params: Params) -> VideoFolder:
    """Where the files of all cases are found, and the clips that views borrow frames from."""
    clips: dict[str, Video] = {case.needle.clip.id: case.needle.clip for case in cases}
    folder = params.data.benchmarks / NAME
    cache = FrameCache(FRAME_CACHE, int(params.runtime.frame_cache_gb * 1e9))
    return VideoFolder(Path(), INDEXES, cache, {one.id: str(folder / one.path) for one in clips.values()})
