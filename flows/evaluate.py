"""evaluate: base, tuned and champion model on the same questions, frames and prompts → data/evaluation and reports."""

import functools
import gc
import json
from collections.abc import Sequence

import torch

from flows.chat import watched
from flows.frames import prober, video_folder
from flows.replies import replies
from flows.stage import (
    EVALUATION,
    JOURNALS,
    REPORTS,
    TUNED,
    Done,
    Stage,
    code_digest,
    of_kind,
    run,
    stage_flow,
    stage_task,
)
from tpo.evaluation.asking import Job, is_asked, plan
from tpo.evaluation.benchmarks import load_benchmarks
from tpo.evaluation.controls import stratified
from tpo.evaluation.preflight import check_complete, check_video, group_by_video, video_path, without_video
from tpo.evaluation.run import Examinee, examine
from tpo.evaluation.statistics import accuracy_csv, compare, headline, metrics
from tpo.models import load_model, model_id
from tpo.params import EvaluateParams, ModelParams, Params, load_params
from tpo.records import Item, Method, Prediction, Rejection, Role, Video
from tpo.registry.champion import fetch_champion
from tpo.registry.tracking import flatten_metrics, log_stage
from tpo.store import read_manifest, write_atomic
from tpo.video.decode import VideoFolder

CHAMPIONS = JOURNALS / "champions"


@stage_task("look at videos")
def check_videos(groups: list[list[Item]], params: Params) -> Done:
    """Each video that is asked about, measured in a child process, before any model is loaded."""
    measure = prober(params.ingest.probe)
    return [(video_path(items), [check_video(params.data.benchmarks, items, measure)]) for items in groups]


@functools.cache
def examinee(role: Role, model: ModelParams, num_frames: int) -> Examinee:
    """A model, loaded once per process and kept until the next one's turn."""
    return Examinee(role, load_model(model, num_frames), replies(), code_digest("tpo/models", "tpo/video"))


@stage_task("ask about videos")
def examine_videos(
    jobs: list[Job], role: Role, model: ModelParams, folder: VideoFolder, params: EvaluateParams
) -> Done:
    asked = examinee(role, model, params.num_frames)
    return [(_name(role, job), [*predictions]) for job, predictions in examine(asked, folder, jobs, params)]


def _name(role: Role, job: Job) -> str:
    return f"{role}: {job.path}"


@stage_flow("evaluate")
def evaluate() -> None:
    params = load_params()
    settings, root = params.evaluate, params.data.benchmarks
    items, bad_rows = load_benchmarks(root)
    asked = [item for item in items if is_asked(item, settings)]
    models = models_to_ask(params)
    ids = {role: model_id(model) for role, model in models.items()}
    key = (ids, settings.model_dump(mode="json"), params.data.seed, [item.model_dump(mode="json") for item in items])
    with Stage("evaluate", "items", key) as stage:
        groups = group_by_video(asked)
        looked_at = stage.map(check_videos, groups, video_path, params.runtime.items_per_task, params)
        found = dict(zip(map(video_path, groups), looked_at, strict=True))
        unusable = {path: one for path, one in found.items() if isinstance(one, Rejection)}
        for line in check_complete(asked, unusable, bad_rows, settings.max_unusable_share):
            print(f"evaluate: {line}", flush=True)
        jobs = jobs_of(groups, found, params)
        predictions = ask_all(stage, models, jobs, params)
        for role in models:
            for group in groups:
                if video_path(group) in unusable:
                    predictions += without_video(group, role, unusable[video_path(group)], settings)
        publish(stage, params, predictions, bad_rows, items, asked, ids)


def models_to_ask(params: Params) -> dict[Role, ModelParams]:
    """Base and tuned model, and the registry's champion if that is another one."""
    models: dict[Role, ModelParams] = {"base": params.model, "tuned": params.model.of(TUNED)}
    champion = fetch_champion(params.register_.name, CHAMPIONS) if params.evaluate.champion else None
    if champion is not None and champion.candidate_id != model_id(models["tuned"]):
        models["champion"] = params.model.of(champion.checkpoint)
    return models


def jobs_of(groups: Sequence[list[Item]], found: dict[str, Video | Rejection], params: Params) -> list[Job]:
    """What is asked about each readable video."""
    settings = params.evaluate
    controlled = (
        stratified([item for group in groups for item in group], settings.controls.items_per_group)
        if settings.controls
        else set()
    )
    jobs = []
    for group in groups:
        video = found[video_path(group)]
        if isinstance(video, Video):
            asks = plan(group, video, {}, settings, controlled, params.data.seed)
            jobs.append(Job(video_path(group), video, asks))
    return jobs


def ask_all(stage: Stage, models: dict[Role, ModelParams], jobs: list[Job], params: Params) -> list[Prediction]:
    """Every model in its turn, so that only one of them is in memory; frames come from the cache after the first."""
    folder = video_folder(params.data.benchmarks, params.runtime, [job.video for job in jobs])
    predictions: list[Prediction] = []
    for role, model in models.items():
        name = functools.partial(_name, role)
        per_task = params.runtime.items_per_task
        found = stage.map(examine_videos, jobs, name, per_task, role, model, folder, params.evaluate)
        predictions += of_kind(found, Prediction)
        examinee.cache_clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return predictions


if __name__ == "__main__":
    run(evaluate)
