"""judge: data/answers → data/pairs. A pair is kept if its preferred answer is better, consistent and correct."""

from prefect import task

from flows.stage import (
    ANSWERS,
    CAPTIONS,
    CATALOG,
    PAIRS,
    QUERIES,
    TASK,
    Done,
    Stage,
    by_video,
    of_kind,
    run,
    stage_flow,
)
from tpo.curation.judging import judge_video
from tpo.curation.mix import mix_pairs
from tpo.errors import UserError
from tpo.params import AnswerParams, load_params
from tpo.records import Answer, Caption, Granularity, PreferencePair, Query, Rejection, Video
from tpo.store import digest, read_records

Job = tuple[Video, list[Caption], list[Query], list[Answer]]


@task(name="judge answers", **TASK)
def judge_videos(jobs: list[Job], params: AnswerParams) -> Done:
    done: Done = []
    for video, captions, queries, answers in jobs:
        pairs, rejections = judge_video(video, captions, queries, answers, params)
        done.append((video.id, [*pairs, *rejections]))
    return done


@stage_flow("judge")
def judge() -> None:
    params = load_params()
    captions = by_video(read_records(CAPTIONS / "captions.jsonl", Caption))
    queries = by_video(read_records(QUERIES / "queries.jsonl", Query))
    answers: dict[str, list[Answer]] = {}
    for answer in read_records(ANSWERS / "answers.jsonl", Answer):
        answers.setdefault(answer.view.video_id, []).append(answer)
    jobs: list[Job] = [
        (video, captions[video.id], queries[video.id], answers.get(video.id, []))
        for video in read_records(CATALOG / "videos.jsonl", Video)
        if video.id in queries
    ]
    inputs = digest(CAPTIONS / "captions.jsonl", QUERIES / "queries.jsonl", ANSWERS / "answers.jsonl")
    key = (inputs, params.judge.model_dump(mode="json"), params.answer.full_frames)
    with Stage("judge", "queries", *key) as stage:
        found = stage.map(judge_videos, jobs, lambda job: job[0].id, params.runtime.items_per_task, params.answer)
        judged = of_kind(found, PreferencePair)
        pairs, over_quota = mix_pairs(judged, params.mix, params.data.seed)
        rejections = of_kind(found, Rejection) + over_quota
        stage.publish(
            PAIRS,
            {"pairs.jsonl": pairs, "rejected.jsonl": rejections},
            items_in=sum(len(asked) for _, _, asked, _ in jobs),
            items_out=len(pairs),
            set_aside=rejections,
            seed=params.data.seed,
            counts={f"{kind} pairs": sum(pair.granularity is kind for pair in pairs) for kind in Granularity},
        )
    if not pairs:
        raise UserError(
            f"Not one preference pair was kept, so there is nothing to train on; {PAIRS}/rejected.jsonl says why."
        )


if __name__ == "__main__":
    run(judge)
