"""What is planned: subtitles under the frames, spans and free answers that are written, and what settings leave out."""

from pathlib import Path

import pytest
from scripted import chat_that

from tpo.evaluation.asking import Job, left_out, plan, plan_jobs
from tpo.evaluation.free_answers import judged
from tpo.evaluation.preflight import describe_silent, video_path
from tpo.evaluation.run import Examinee, examine
from tpo.models.video_lmm import VideoLMM
from tpo.params import EndpointParams, EvaluateParams
from tpo.records import Item, Method, PredictionStatus, Reason, Task, Video
from tpo.replies import ReplyCache
from tpo.video.decode import VideoFolder
from tpo.video.sample import dense

PARAMS = EvaluateParams(num_frames=6, prompts="official", confidence=0.95, bootstrap_samples=100)
JUDGE = EndpointParams(url="http://127.0.0.1:9/v1", model="judge")
WRITTEN = PARAMS.model_copy(update={"max_new_tokens": 4, "free_answer_judge": JUDGE})


@pytest.fixture
def videos(groups: list[list[Item]], videos: list[Video]) -> dict[str, Video]:
    """By path, as they are looked at."""
    return dict(zip(map(video_path, groups), videos, strict=True))


def span(item: Item) -> Item:
    change = {"task": Task.SPAN, "options": (), "gold": None, "spans_s": ((1.0, 3.0),), "id": f"{item.id}#span"}
    return Item.model_validate(dict(item) | change)


def free(item: Item) -> Item:
    change = {"task": Task.OPEN, "options": (), "gold": None, "reference": "A star.", "id": f"{item.id}#open"}
    return Item.model_validate(dict(item) | change)


def test_spans_need_to_be_written_and_free_answers_a_judge_as_well(groups: list[list[Item]]) -> None:
    item = groups[0][0]
    written = PARAMS.model_copy(update={"max_new_tokens": 4})
    cases = [(span(item), PARAMS, "max_new_tokens"), (free(item), written, "free_answer_judge")]
    for one, params, needs in cases:
        reason = left_out(one, params)
        assert reason is not None
        assert (reason.item, reason.reason) == (one.id, Reason.NOT_ASKED)
        assert needs in reason.detail
    assert [left_out(one, WRITTEN) for one in (item, span(item), free(item))] == [None] * 3


def test_lines_under_the_sampled_frames_stand_in_the_prompt_and_no_others(
    root: Path, groups: list[list[Item]], videos: dict[str, Video]
) -> None:
    params = PARAMS.model_copy(update={"subtitles": True})
    group = [item for item in groups[0] if item.subtitles]
    path, video = video_path(group), videos[video_path(group)]
    first_s, second_s = dense(video, params.num_frames).timestamps_s[1:3]
    start_s = group[0].subtitles_start_s
    told = root / group[0].benchmark / str(group[0].subtitles)
    before = told.read_text()
    told.write_text(
        f'[{{"timestamp": [{start_s + first_s - 0.9}, {start_s + first_s + 0.9}], "text": "under a frame"}},'
        f' {{"timestamp": [{start_s + first_s + 1}, {start_s + second_s - 1}], "text": "between two frames"}}]'
    )
    try:
        (job,), flagged = plan_jobs([group], {path: video}, root, params, 0)
    finally:
        told.write_text(before)
    assert flagged == []
    assert all("under a frame\n" in ask.prompt.user for ask in job.asks)
    assert all("between" not in ask.prompt.user for ask in job.asks)
    (plain,), _ = plan_jobs([group], {path: video}, root, PARAMS, 0)
    assert all("under a frame" not in ask.prompt.user for ask in plain.asks)


def test_a_job_has_another_name_once_its_subtitles_or_its_video_have_changed(
    root: Path, groups: list[list[Item]], videos: dict[str, Video]
) -> None:
    params = PARAMS.model_copy(update={"subtitles": True})
    group = [item for item in groups[0] if item.subtitles]
    path, video = video_path(group), videos[video_path(group)]
    without = [item.model_copy(update={"subtitles": None}) for item in group]
    other = video.model_copy(update={"id": "ab" * 32})
    cases = [(group, video), (without, video), (group, other), (group, video)]
    names = [plan_jobs([asked], {path: one}, root, params, 0)[0][0].name for asked, one in cases]
    assert len(set(names[:3])) == 3
    assert names[3] == names[0]


def test_subtitles_that_say_nothing_are_flagged_and_the_question_is_asked_without_them(
    root: Path, groups: list[list[Item]], videos: dict[str, Video]
) -> None:
    params = PARAMS.model_copy(update={"subtitles": True})
    group = [item for item in groups[0] if item.subtitles]
    told = root / group[0].benchmark / str(group[0].subtitles)
    before = told.read_bytes()
    told.write_bytes(b"")
    try:
        (job,), flagged = plan_jobs([group], videos, root, params, 0)
    finally:
        told.write_bytes(before)
    assert [(one.item, one.reason) for one in flagged] == [(item.id, Reason.SUBTITLES_UNUSABLE) for item in group]
    (said,) = describe_silent(flagged)
    assert f"{group[0].benchmark}: {len(group)} questions are asked without their subtitles" in said
    assert f"The first: {group[0].id}: {told} is empty" in said
    assert len(job.asks) == len(group)


def test_a_video_that_cannot_be_read_has_no_job(root: Path, groups: list[list[Item]], videos: dict[str, Video]) -> None:
    jobs, _ = plan_jobs(groups, videos | {video_path(groups[0]): groups[0][0]}, root, PARAMS, 0)
    assert [job.path for job in jobs] == [video_path(group) for group in groups[1:]]


def test_spans_and_free_answers_are_written_read_and_judged(
    root: Path, groups: list[list[Item]], videos: dict[str, Video], model: VideoLMM, tmp_path: Path
) -> None:
    item = groups[0][0]
    items, path = [item, span(item), free(item)], video_path(groups[0])
    asks = plan(items, videos[path], {}, WRITTEN, (), 0)
    assert [(ask.item.task, ask.method) for ask in asks] == [
        (Task.CHOICE, Method.LOGPROB),
        (Task.CHOICE, Method.GENERATION),
        (Task.OPEN, Method.GENERATION),
        (Task.SPAN, Method.GENERATION),
    ]
    (job,), _ = plan_jobs([items], {path: videos[path]}, root, WRITTEN, 0)
    examinee = Examinee("base", model, ReplyCache(tmp_path / "said.sqlite"), "code")
    ((_, said),) = examine(examinee, VideoFolder(root, root / ".frames"), [job], WRITTEN)
    by_task = {one.task: one for one in said if one.method is Method.GENERATION}
    assert by_task[Task.SPAN].status in (PredictionStatus.NONE, PredictionStatus.ILLEGAL)
    assert (by_task[Task.SPAN].score, by_task[Task.SPAN].correct) == (0, False)
    assert by_task[Task.OPEN].status is PredictionStatus.NOT_JUDGED
    chat, _ = chat_that(tmp_path, lambda *_: "completeness: 5\nreliability: 3")
    marked = {one.task: one for one in judged(chat, items, said) if one.method is Method.GENERATION}
    assert (marked[Task.OPEN].status, marked[Task.OPEN].score) == (PredictionStatus.OK, 0.75)
    assert marked[Task.SPAN] == by_task[Task.SPAN]
    assert marked[Task.OPEN].video_id == videos[path].id


def test_questions_with_other_instructions_before_the_video_are_asked_about_it_as_well(
    root: Path, groups: list[list[Item]], videos: dict[str, Video], model: VideoLMM, tmp_path: Path
) -> None:
    """MLVU's test set has both kinds about one video, each with its own instructions."""
    choice = groups[0][0].model_copy(update={"benchmark": "mlvu_test", "subtitles": None})
    asks = plan([choice, free(choice)], videos[video_path(groups[0])], {}, WRITTEN, (), 0)
    assert len({ask.prompt.system for ask in asks}) == 2
    job = Job("job", video_path(groups[0]), videos[video_path(groups[0])], asks)
    examinee = Examinee("base", model, ReplyCache(tmp_path / "said.sqlite"), "code")
    ((_, said),) = examine(examinee, VideoFolder(root, root / ".frames"), [job], WRITTEN)
    assert [one.task for one in said] == [Task.CHOICE, Task.CHOICE, Task.OPEN]
    assert said[0].status is PredictionStatus.OK
