"""ask: data/captions → data/queries. Localized and comprehensive questions, written from captions."""

from typing import Any

from flows.chat import chat_with, watched
from flows.stage import CAPTIONS, CATALOG, QUERIES, Done, Stage, by_video, of_kind, run, stage_flow, stage_task
from tpo.curation.contamination import check_questions, keep_clean
from tpo.curation.contamination import rejections as contaminated_queries
from tpo.curation.model_queries import ask_videos
from tpo.curation.queries import ask_video
from tpo.errors import UserError
from tpo.evaluation.benchmarks import find_items
from tpo.params import AskParams, Params, load_params
from tpo.records import Caption, Granularity, Query, Record, Rejection, Video
from tpo.store import count_reasons, digest, read_records

Job = tuple[Video, list[Caption]]


@stage_task("ask by rule")
def ask_by_rule(jobs: list[Job], params: AskParams, seed: int) -> Done:
    done: Done = []
    for video, captions in jobs:
        queries, rejections = ask_video(video, captions, params, seed)
        done.append((video.id, [*queries, *rejections]))
    return done


@stage_task("ask by model")
def ask_by_model(jobs: list[Job], params: AskParams, seed: int) -> Done:
    assert params.asker != "rule"
    return ask_videos(chat_with(params.asker), jobs, params, seed)


@stage_flow("ask")
def ask() -> None:
    params = load_params()
    captions = by_video(read_records(CAPTIONS / "captions.jsonl", Caption))
    videos = [video for video in read_records(CATALOG / "videos.jsonl", Video) if video.id in captions]
    jobs: list[Job] = [(video, captions[video.id]) for video in videos]
    items, note = find_items(params.data.benchmarks)
    key = (digest(CAPTIONS / "captions.jsonl"), params.ask.model_dump(mode="json"), params.data.seed)
    with Stage("ask", "videos", *key) as stage:
        found, facts = _questions(stage, jobs, params)
        written, rejections = of_kind(found, Query), of_kind(found, Rejection)
        report = check_questions(
            {query.id: query.question for query in written}, items, params.ask.contamination_words, note
        )
        queries, left_without = keep_clean(written, report)
        rejections += left_without
        ids = {video.id for video in videos}
        of_questions = [rejection for rejection in rejections if rejection.item not in ids]
        blind = [query.blind.score for query in queries if query.blind is not None]
        stage.publish(
            QUERIES,
            {
                "queries.jsonl": queries,
                "rejected.jsonl": rejections,
                "contaminated.jsonl": contaminated_queries(report),
                "decontamination.json": report.model_dump_json(indent=2) + "\n",
            },
            items_in=len(videos),
            items_out=len({query.video_id for query in queries}),
            set_aside=[rejection for rejection in rejections if rejection.item in ids],
            seed=params.data.seed,
            counts={f"{kind} queries": sum(query.granularity is kind for query in queries) for kind in Granularity}
            | {"contaminated queries": len(report.found)}
            | {f"questions set aside: {reason}": count for reason, count in count_reasons(of_questions).items()}
            | {"queries asked blind": len(blind), "of them answered at least once": sum(score > 0 for score in blind)},
            facts={"benchmarks": report.status, **facts},
        )
    if not queries:
        raise UserError(f"No question could be asked about {len(videos)} videos; {QUERIES}/rejected.jsonl says why.")


def _questions(stage: Stage, jobs: list[Job], params: Params) -> tuple[list[Record], dict[str, Any]]:
    """What the asker gives, and what it cost."""
    asker, per_task, settings = params.ask.asker, params.runtime.items_per_task, (params.ask, params.data.seed)
    if asker == "rule":
        return stage.map(ask_by_rule, jobs, _id, per_task, *settings), {}
    chat = watched(asker, stage)
    found = stage.map(ask_by_model, jobs, _id, per_task, *settings)
    return found, {"model": chat.id, "usage": chat.usage.model_dump()}


def _id(job: Job) -> str:
    return job[0].id


if __name__ == "__main__":
    run(ask)
