"""judge: data/answers → data/judged. A pair is kept if its preferred answer is better, consistent and correct."""

from flows.chat import chat_with, watched
from flows.stage import (
    ANSWERS,
    CAPTIONS,
    CATALOG,
    JUDGED,
    QUERIES,
    Done,
    Stage,
    by_video,
    of_kind,
    run,
    stage_flow,
    stage_task,
)
from tpo.curation.judging import Candidate, Judge, RuleJudge, candidates_of, judge_pairs
from tpo.curation.model_judging import ModelJudge
from tpo.errors import UserError
from tpo.params import JudgeParams, load_params
from tpo.records import Answer, Caption, Granularity, PreferencePair, Query, Rejection, Video
from tpo.store import digest, read_records

Job = tuple[str, list[Candidate]]


@stage_task("judge answers")
def judge_videos(jobs: list[Job], params: JudgeParams, full_frames: int) -> Done:
    """The pairs of several videos are judged at once: a model may have many calls in flight."""
    judge: Judge = RuleJudge() if params.judge == "rule" else ModelJudge(chat_with(params.judge), params)
    outcomes = iter(judge_pairs([one for _, candidates in jobs for one in candidates], judge, full_frames))
    return [(video_id, [next(outcomes) for _ in candidates]) for video_id, candidates in jobs]


@stage_flow("judge")
def judge() -> None:
    params = load_params()
    captions = by_video(read_records(CAPTIONS / "captions.jsonl", Caption))
    queries = by_video(read_records(QUERIES / "queries.jsonl", Query))
    answers: dict[str, list[Answer]] = {}
    for answer in read_records(ANSWERS / "answers.jsonl", Answer):
        answers.setdefault(answer.view.video_id, []).append(answer)
    jobs: list[Job] = []
    unanswered: list[Rejection] = []
    for video in read_records(CATALOG / "videos.jsonl", Video):
        if video.id in queries:
            candidates, without = candidates_of(video, captions[video.id], queries[video.id], answers.get(video.id, []))
            jobs.append((video.id, candidates))
            unanswered += without
    inputs = digest(CAPTIONS / "captions.jsonl", QUERIES / "queries.jsonl", ANSWERS / "answers.jsonl")
    settings, full_frames = params.judge, params.answer.full_frames
    with Stage("judge", "pairs of answers", inputs, settings.model_dump(mode="json"), full_frames) as stage:
        chat = None if settings.judge == "rule" else watched(settings.judge, stage)
        per_task = params.runtime.items_per_task
        found = stage.map(judge_videos, jobs, lambda job: job[0], per_task, settings, full_frames)
        pairs, rejections = of_kind(found, PreferencePair), unanswered + of_kind(found, Rejection)
        stage.publish(
            JUDGED,
            {"pairs.jsonl": pairs, "rejected.jsonl": rejections},
            items_in=len(unanswered) + sum(len(candidates) for _, candidates in jobs),
            items_out=len(pairs),
            set_aside=rejections,
            counts={f"{kind} pairs": sum(pair.granularity is kind for pair in pairs) for kind in Granularity},
            facts={"model": chat.id, "usage": chat.usage.model_dump()} if chat else {},
        )
    if not pairs:
        raise UserError(
            f"Not one preference pair was kept, so there is nothing to train on; {JUDGED}/rejected.jsonl says why."
        )


if __name__ == "__main__":
    run(judge)
