"""evaluate: base, tuned and champion model on the same questions, frames and prompts → data/evaluation and reports."""

import functools
import gc
import json
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import torch

from flows.chat import watched
from flows.frames import prober, video_folder
from flows.needles import needle_folder, needle_jobs, not_found, plan_cases
from flows.replies import replies
from flows.stage import (
    EVALUATION,
    JOURNALS,
    REPORTS,
    TUNED,
    Done,
    Stage,
    answering_code,
    of_kind,
    run,
    stage_flow,
    stage_task,
)
from tpo.errors import UserError
from tpo.evaluation.analysis import Analysis, analyse
from tpo.evaluation.asking import Job, left_out, plan_jobs
from tpo.evaluation.benchmarks import any_benchmark, describe, load_benchmarks
from tpo.evaluation.free_answers import judged
from tpo.evaluation.metrics import accuracy_csv, headline, metrics
from tpo.evaluation.needle_map import NeedleMaps, difference_csv, map_csv, needle_maps, needle_metrics
from tpo.evaluation.preflight import (
    check_complete,
    check_video,
    describe_left_out,
    describe_silent,
    file_state,
    group_by_video,
    num_lost,
    unanswered,
    video_path,
)
from tpo.evaluation.prompts import style_names
from tpo.evaluation.run import Examinee, examine
from tpo.evaluation.table import items_csv
from tpo.models.identity import model_id
from tpo.models.load import load_model
from tpo.params import EvaluateParams, ModelParams, Params, load_params
from tpo.records import Item, Prediction, Rejection, Role
from tpo.registry.champion import Champion, fetch_champion
from tpo.registry.tracking import flatten_metrics, log_stage
from tpo.store import count_reasons, digest, read_manifest, write_atomic
from tpo.video.decode import VideoFolder

CHAMPIONS = JOURNALS / "champions"


@stage_task("look at videos")
def check_videos(groups: list[tuple[str, list[Item]]], params: Params) -> Done:
    """Each video that is asked about, measured in a child process, before any model is loaded."""
    measure = prober(params.ingest.probe)
    return [(name, [check_video(params.data.benchmarks, items, measure)]) for name, items in groups]


@functools.cache
def examinee(role: Role, model: ModelParams, num_frames: int) -> Examinee:
    """A model, loaded once per process and kept until the next one's turn."""
    return Examinee(role, load_model(model, num_frames), replies(), answering_code())


@stage_task("ask about videos")
def examine_videos(
    jobs: list[Job], role: Role, model: ModelParams, folder: VideoFolder, params: EvaluateParams
) -> Done:
    asked = examinee(role, model, params.most_frames)
    return [(_name(role, job), [*predictions]) for job, predictions in examine(asked, folder, jobs, params)]


def _name(role: Role, job: Job) -> str:
    return f"{role}: {job.name}"


@stage_flow("evaluate")
def evaluate() -> None:
    params = load_params()
    settings, root = params.evaluate, params.data.benchmarks
    cases, unfit = plan_cases(params)
    needles_alone = bool(cases) and not any_benchmark(root)
    items, bad_rows = ([], []) if needles_alone else load_benchmarks(root)
    say(describe(items, bad_rows, root))
    not_asked = [reason for item in items if (reason := left_out(item, settings))]
    asked = [item for item in items if left_out(item, settings) is None]
    say(describe_left_out(not_asked))
    if not asked and not cases:
        raise UserError(f"Nothing is left to ask. {not_asked[0].item}: {not_asked[0].detail}")
    champion = fetch_champion(params.register_.name, CHAMPIONS) if params.evaluate.champion else None
    models = models_to_ask(params, champion)
    ids = {role: model_id(model) for role, model in models.items()}
    planned = [one.model_dump(mode="json") for one in (*items, *cases)]
    settled = (ids, settings.model_dump(mode="json"), params.data.seed, planned, str(root), answering_code())
    with Stage("evaluate", "items", *settled) as stage:
        groups = group_by_video(asked)
        found = [(file_state(root, group), group) for group in groups]
        looked_at = stage.map(check_videos, found, itemgetter(0), params.runtime.items_per_task, params, what="looking")
        videos = dict(zip(map(video_path, groups), looked_at, strict=True))
        unusable = {path: found for path, found in videos.items() if isinstance(found, Rejection)}
        say(check_complete(items, unusable, bad_rows, settings.max_unusable_share))
        jobs, flagged = plan_jobs(groups, videos, root, settings, params.data.seed)
        say(describe_silent(flagged))
        hidden, shown, not_shown = needle_jobs(stage, cases, params)
        predictions: list[Prediction] = []
        found_needles: list[Prediction] = []
        for role, model in models.items():
            predictions += ask(stage, role, model, jobs, video_folder(root, params.runtime), params, "videos")
            predictions += unanswered(groups, role, unusable, settings)
            found_needles += ask(stage, role, model, hidden, needle_folder(cases, params), params, "needles")
            found_needles += not_found(cases, role, not_shown)
            forget_model()
        if settings.free_answer_judge is not None:
            predictions = judged(watched(settings.free_answer_judge, stage), asked, predictions)
        analysis = analyse(
            predictions,
            asked,
            letters=settings.prompts != "question",
            confidence=settings.confidence,
            samples=settings.bootstrap_samples,
            seed=params.data.seed,
        )
        maps = needle_maps(cases, shown, found_needles, confidence=settings.confidence)
        numbers = metrics(analysis, num_lost(bad_rows), len(flagged))
        numbers["prompts"] = style_names(asked, settings.prompts, subtitles=settings.subtitles)
        numbers["needle"] = needle_metrics(cases, maps, confidence=settings.confidence)
        run_id = report(analysis, maps, numbers, ids, params)
        set_aside = bad_rows + not_asked
        stage.publish(
            EVALUATION,
            {
                "predictions.jsonl": predictions,
                "needles.jsonl": found_needles,
                "needles_shown.jsonl": shown,
                "items.csv": items_csv(predictions + found_needles),
                "rejected.jsonl": set_aside,
                "flagged.jsonl": [*flagged, *unfit, *not_shown],
            },
            items_in=len(items) + len(bad_rows),
            items_out=len(asked),
            set_aside=set_aside,
            counts={f"flagged: {reason}": n for reason, n in count_reasons([*flagged, *unfit, *not_shown]).items()},
            facts={
                "mlflow_run_id": run_id,
                "metrics_digest": digest(REPORTS / "evaluation.json"),  # the gate asks whether that is still the file
                # Who was champion when it was measured: the gate asks whether it still is.
                "champion": champion and champion.model_dump(include={"version", "candidate_id"}),
                **{f"{role}_id": its_id for role, its_id in ids.items()},
            },
        )


def report(analysis: Analysis, maps: NeedleMaps, numbers: dict[str, Any], ids: dict[Role, str], params: Params) -> str:
    """Write what DVC, the gate and people read, and log it; the id of the MLflow run."""
    write_atomic(REPORTS / "metrics.json", json.dumps(headline(analysis), indent=2) + "\n")
    write_atomic(REPORTS / "evaluation.json", json.dumps(numbers, indent=2) + "\n")
    write_atomic(REPORTS / "accuracy.csv", accuracy_csv(analysis))
    write_atomic(REPORTS / "needle.csv", map_csv(maps.cells))
    write_atomic(REPORTS / "needle_difference.csv", difference_csv(maps.differences))
    return log_stage(
        "evaluate",
        params.register_.experiment,
        params={"evaluate": params.evaluate.model_dump(mode="json")},
        metrics=flatten_metrics(numbers),
        artifacts=[REPORTS / name for name in ("evaluation.json", "accuracy.csv", "needle.csv")],
        tags={"train_run_id": read_manifest(TUNED).facts["mlflow_run_id"], **{f"{r}_id": ids[r] for r in ids}},
    )


def say(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"evaluate: {line}", flush=True)


def models_to_ask(params: Params, champion: Champion | None) -> dict[Role, ModelParams]:
    """Base and tuned model, and the registry's champion if that is another one."""
    models: dict[Role, ModelParams] = {"base": params.model, "tuned": params.model.of(TUNED)}
    if champion is not None and champion.candidate_id != model_id(models["tuned"]):
        models["champion"] = params.model.of(champion.checkpoint)
    return models


def ask(
    stage: Stage, role: Role, model: ModelParams, jobs: list[Job], folder: VideoFolder, params: Params, unit: str
) -> list[Prediction]:
    """What one model says to all that is planned; frames come from the cache after the first model's turn."""
    name, per_task = functools.partial(_name, role), params.runtime.items_per_task
    if any(name(job) not in stage.journal.done for job in jobs):
        examinee(role, model, params.evaluate.most_frames)  # before several tasks want it at once
    settings = params.evaluate
    found = stage.map(
        examine_videos, jobs, name, per_task, role, model, folder, settings, what=f"{role} model", unit=unit
    )
    return of_kind(found, Prediction)


def forget_model() -> None:
    """Only one model is in memory at a time."""
    examinee.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    run(evaluate)
