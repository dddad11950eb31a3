"""ask: data/captions → data/queries. Localized and comprehensive questions, written from captions."""

from prefect import task

from flows.stage import CAPTIONS, CATALOG, QUERIES, TASK, Done, Stage, by_video, of_kind, run, stage_flow
from tpo.curation.contamination import check_questions, keep_clean
from tpo.curation.contamination import rejections as contaminated_queries
from tpo.curation.queries import ask_video
from tpo.errors import UserError
from tpo.evaluation.benchmarks import find_items
from tpo.params import AskParams, load_params
from tpo.records import Caption, Granularity, Query, Rejection, Video
from tpo.store import digest, read_records

Job = tuple[Video, list[Caption]]


@task(name="ask about videos", **TASK)
def ask_videos(jobs: list[Job], params: AskParams, seed: int) -> Done:
    done: Done = []
    for video, captions in jobs:
        queries, rejections = ask_video(video, captions, params, seed)
        done.append((video.id, [*queries, *rejections]))
    return done


@stage_flow("ask")
def ask() -> None:
    params = load_params()
    captions = by_video(read_records(CAPTIONS / "captions.jsonl", Caption))
    videos = [video for video in read_records(CATALOG / "videos.jsonl", Video) if video.id in captions]
    jobs: list[Job] = [(video, captions[video.id]) for video in videos]
    items, note = find_items(params.data.benchmarks)
    key = (digest(CAPTIONS / "captions.jsonl"), params.ask.model_dump(mode="json"), params.data.seed)
    with Stage("ask", "videos", *key) as stage:
        found = stage.map(
            ask_videos, jobs, lambda job: job[0].id, params.runtime.items_per_task, params.ask, params.data.seed
        )
        written, rejections = of_kind(found, Query), of_kind(found, Rejection)
        report = check_questions(written, items, params.ask.contamination_words, note)
        queries, left_without = keep_clean(written, report)
        rejections += left_without
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
            set_aside=rejections,
            seed=params.data.seed,
            counts={f"{kind} queries": sum(query.granularity is kind for query in queries) for kind in Granularity}
            | {"contaminated queries": len(report.found)},
            facts={"benchmarks": report.status},
        )
    if not queries:
        raise UserError(f"No question could be asked about {len(videos)} videos; {QUERIES}/rejected.jsonl says why.")


if __name__ == "__main__":
    run(ask)
