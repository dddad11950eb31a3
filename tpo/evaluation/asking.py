"""What a model is asked about a video: every item, under every condition, in every way that `params.evaluate` names.

    asks = plan(items, video, lines, params, controlled, seed)

The plan is the same for every model, so that whatever differs between their answers is the models'.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tpo.evaluation.benchmarks.rows import STAGE
from tpo.evaluation.controls import can_rotate, rotated, shown_under, stratified
from tpo.evaluation.grounding import span_prompt
from tpo.evaluation.preflight import read_lines, video_path
from tpo.evaluation.prompts import candidates, render
from tpo.params import EvaluateParams
from tpo.records import Condition, Item, Method, Prompt, Reason, Record, Rejection, Task, Video, View, content_id
from tpo.video.sample import dense


class Ask(NamedTuple):
    """One question as it is put once.

    Attributes:
        rotation: places by which the item's options are moved on where they are listed.
        candidates: possible answers whose log-probabilities are asked for; none = an answer is to be written.
    """

    item: Item
    condition: Condition
    rotation: int
    view: View | None
    prompt: Prompt
    candidates: tuple[str, ...]

    @property
    def method(self) -> Method:
        return Method.LOGPROB if self.candidates else Method.GENERATION


class Job(NamedTuple):
    """What is asked about one video, whose file lies at `path` below the folder it is looked for in.

    `name` stands for all of it: under the same name the same is asked.
    """

    name: str
    path: str
    video: Video
    asks: list[Ask]


def left_out(item: Item, params: EvaluateParams) -> Rejection | None:
    """Why these settings leave an item out, if they do: spans and free answers must be written, free ones judged."""
    if item.task is Task.SPAN and params.max_new_tokens is None:
        needs = "spans are written: set evaluate.max_new_tokens"
    elif item.task is Task.OPEN and params.free_answer_judge is None:
        needs = "free answers need evaluate.free_answer_judge"
    else:
        return None
    return Rejection(stage=STAGE, item=item.id, reason=Reason.NOT_ASKED, detail=needs)


def plan_jobs(
    groups: Sequence[Sequence[Item]], videos: Mapping[str, Record], root: Path, params: EvaluateParams, seed: int
) -> tuple[list[Job], list[Rejection]]:
    """What is asked about each video that can be read; and the items whose subtitles are there but of no use.

    Args:
        groups: the items of each video.
        videos: by `video_path`, what was found out about it.
        root: the folder of all benchmarks.
    """
    everything = [item for group in groups for item in group]
    controlled = stratified(everything, params.controls.items_per_group) if params.controls else set()
    jobs: list[Job] = []
    flagged: list[Rejection] = []
    for group in groups:
        video = videos[video_path(group)]
        if isinstance(video, Video):
            lines, without = read_lines(group, root, video, params.num_frames) if params.subtitles else ({}, [])
            path, asks = video_path(group), plan(group, video, lines, params, controlled, seed)
            jobs.append(Job(f"{path} {_content(video, asks)}", path, video, asks))
            flagged += without
    return jobs, flagged


def _content(video: Video, asks: Sequence[Ask]) -> str:
    """Stands for what lies in files and may change before a killed run goes on: the video, and what is said in it."""
    return content_id(video.id, [ask.prompt.model_dump() for ask in asks])


def plan_needle(item: Item, video: Video, path: str, view: View, params: EvaluateParams) -> Job:
    """A case of the needle test: the question about what is shown, by log-probability."""
    ask = Ask(item, Condition.FULL, 0, view, render(item, params.prompts), candidates(item, params.prompts))
    return Job(item.id, path, video, [ask])


def plan(
    items: Sequence[Item],
    video: Video,
    subtitles: Mapping[str, Sequence[str]],
    params: EvaluateParams,
    controlled: Collection[str],
    seed: int,
) -> list[Ask]:
    """Everything that a model is asked about one video, in an order that does not depend on that of `items`.

    Args:
        subtitles: by item id, the lines under the frames of the full view.
        controlled: ids of the items that are asked under the controls too.
    """
    full = dense(video, params.num_frames)
    asks: list[Ask] = []
    for item in sorted(items, key=lambda one: one.id):
        lines = subtitles.get(item.id, ())
        asks += _in_full(item, video, full, lines, params)
        if params.controls is not None and item.id in controlled:
            for condition in params.controls.conditions:
                asks += _controlled(item, condition, full, lines, params, seed)
    return asks


def _in_full(item: Item, video: Video, full: View, lines: Sequence[str], params: EvaluateParams) -> Iterator[Ask]:
    if item.task is Task.SPAN:
        yield Ask(item, Condition.FULL, 0, full, span_prompt(item, params.prompts, video.duration_s), ())
        return
    prompt = render(item, params.prompts, lines)
    if item.task is Task.CHOICE:
        yield Ask(item, Condition.FULL, 0, full, prompt, candidates(item, params.prompts))
    if params.max_new_tokens is not None:
        yield Ask(item, Condition.FULL, 0, full, prompt, ())


def _controlled(
    item: Item, condition: Condition, full: View, lines: Sequence[str], params: EvaluateParams, seed: int
) -> Iterator[Ask]:
    """By log-probability alone. Where options are not listed, or speak of each other, there is nothing to rotate."""
    rotations = [0]
    if condition is Condition.CIRCULAR:
        listed = params.prompts != "question" and can_rotate(item)
        rotations = list(range(len(item.options))) if listed else []
    view = shown_under(condition, full, seed)
    for by in rotations:
        moved = rotated(item, by)
        prompt = render(moved, params.prompts, lines)
        yield Ask(item, condition, by, view, prompt, candidates(moved, params.prompts))
