"""evaluate: base and tuned model on the same benchmark items → data/evaluation and reports/metrics.json."""

import functools
import json

from flows.frames import prober, video_folder
from flows.stage import EVALUATION, REPORTS, TUNED, Done, Stage, of_kind, run, stage_flow, stage_task
from tpo.evaluation.benchmarks import load_benchmarks
from tpo.evaluation.run import check_video, evaluate_video, group_by_video
from tpo.evaluation.statistics import accuracy_csv, compare, headline, metrics
from tpo.models import VideoLMM, load_model
from tpo.params import Params, load_params
from tpo.records import Item, Prediction, Role
from tpo.registry.tracking import flatten_metrics, log_stage
from tpo.store import read_manifest, write_atomic

ROLES: tuple[Role, ...] = ("base", "tuned")


@functools.cache
def models() -> dict[Role, VideoLMM]:
    """Base and tuned, loaded once per process."""
    params = load_params()
    num_frames = params.evaluate.num_frames
    return {"base": load_model(params.model, num_frames), "tuned": load_model(params.model.of(TUNED), num_frames)}


@stage_task("evaluate videos")
def evaluate_videos(groups: list[list[Item]], params: Params) -> Done:
    """Both models on all items of each video, on the same frames."""
    done: Done = []
    root, settings = params.data.benchmarks, params.evaluate
    folder = video_folder(root, params.runtime)
    for items in groups:
        video = check_video(root, items, prober(params.ingest.probe))
        predictions = [
            prediction
            for role in ROLES
            for prediction in evaluate_video(
                models()[role], role, folder, items, video, settings.num_frames, settings.prompts
            )
        ]
        done.append((_name(items), [*predictions]))
    return done


def _name(items: list[Item]) -> str:
    return f"{items[0].benchmark}/{items[0].video}"


@stage_flow("evaluate")
def evaluate() -> None:
    params = load_params()
    items, rejections = load_benchmarks(params.data.benchmarks)
    ids = {role: model.id for role, model in models().items()}
    key = (ids, params.evaluate.model_dump(mode="json"), [item.model_dump(mode="json") for item in items])
    with Stage("evaluate", "items", key) as stage:
        groups = group_by_video(items)
        found = of_kind(stage.map(evaluate_videos, groups, _name, params.runtime.items_per_task, params), Prediction)
        by_role = {role: [p for p in found if p.model == role] for role in ROLES}
        settings = params.evaluate
        comparisons = compare(
            by_role["base"],
            by_role["tuned"],
            confidence=settings.confidence,
            samples=settings.bootstrap_samples,
            seed=params.data.seed,
        )
        numbers = metrics(comparisons, found)
        write_atomic(REPORTS / "metrics.json", json.dumps(headline(comparisons), indent=2) + "\n")
        write_atomic(REPORTS / "evaluation.json", json.dumps(numbers, indent=2) + "\n")
        write_atomic(REPORTS / "accuracy.csv", accuracy_csv(comparisons))
        run_id = log_stage(
            "evaluate",
            params.register_.experiment,
            params={"evaluate": settings.model_dump(mode="json")},
            metrics=flatten_metrics(numbers),
            tags={"train_run_id": read_manifest(TUNED).facts["mlflow_run_id"], **{f"{r}_id": ids[r] for r in ids}},
        )
        stage.publish(
            EVALUATION,
            {"predictions.jsonl": found, "rejected.jsonl": rejections},
            items_in=len(items) + len(rejections),
            items_out=len(items),
            set_aside=rejections,
            facts={"mlflow_run_id": run_id, **{f"{role}_id": model_id for role, model_id in ids.items()}},
        )


if __name__ == "__main__":
    run(evaluate)
