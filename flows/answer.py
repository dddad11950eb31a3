"""answer: data/queries → data/answers. The policy model answers each query with and without the evidence in view."""

import functools

from flows.frames import video_folder
from flows.replies import replies
from flows.stage import (
    ANSWERS,
    CATALOG,
    QUERIES,
    Done,
    Stage,
    answering_code,
    by_video,
    of_kind,
    run,
    stage_flow,
    stage_task,
)
from tpo.curation.answers import Policy, answer_video
from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.params import AnswerParams, ModelParams, load_params
from tpo.records import Answer, Query, Rejection, Video
from tpo.store import digest, read_records
from tpo.video.decode import VideoFolder

Job = tuple[Video, list[Query]]


@functools.cache
def policy(params: ModelParams, num_frames: int) -> Policy:
    """The model, loaded once per process."""
    return Policy(load_model(params, num_frames), replies(), answering_code())


@stage_task("answer about videos")
def answer_videos(
    jobs: list[Job], videos: list[Video], folder: VideoFolder, model: ModelParams, params: AnswerParams, seed: int
) -> Done:
    done: Done = []
    for video, queries in jobs:
        answers, rejections = answer_video(
            policy(model, params.most_frames), video, videos, folder, queries, params, seed
        )
        done.append((video.id, [*answers, *rejections]))
    return done


@stage_flow("answer")
def answer() -> None:
    params = load_params()
    queries = by_video(read_records(QUERIES / "queries.jsonl", Query))
    videos = read_records(CATALOG / "videos.jsonl", Video)
    jobs: list[Job] = [(video, queries[video.id]) for video in videos if video.id in queries]
    model_id = policy(params.model, params.answer.most_frames).model.id
    seed = params.data.seed
    inputs = digest(CATALOG / "videos.jsonl", QUERIES / "queries.jsonl")
    with Stage("answer", "queries", inputs, params.answer.model_dump(mode="json"), model_id, seed) as stage:
        found = stage.map(
            answer_videos,
            jobs,
            lambda job: job[0].id,
            params.runtime.items_per_task,
            videos,
            video_folder(params.data.videos, params.runtime, videos),
            params.model,
            params.answer,
            seed,
        )
        answers, rejections = of_kind(found, Answer), of_kind(found, Rejection)
        stage.publish(
            ANSWERS,
            {"answers.jsonl": answers, "rejected.jsonl": rejections},
            items_in=sum(len(asked) for _, asked in jobs),
            items_out=len({answer.query_id for answer in answers}),
            set_aside=rejections,
            seed=seed,
            facts={"model_id": model_id},
        )
    if not answers:
        raise UserError(f"No query could be answered; {ANSWERS}/rejected.jsonl says why.")


if __name__ == "__main__":
    run(answer)
