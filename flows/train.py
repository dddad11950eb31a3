"""train: data/pairs → models/tuned. DPO + α·SFT on full video and question; the curves go to MLflow."""

from pathlib import Path

from prefect import task

from flows.frames import video_folder
from flows.replies import replies
from flows.stage import CATALOG, PAIRS, REPORTS, TASK, TUNED, VALIDATION, Stage, run, stage_flow
from tpo.errors import UserError
from tpo.models import VideoLMM
from tpo.params import load_params
from tpo.records import PreferencePair, Video
from tpo.registry.tracking import log_stage
from tpo.store import digest, read_manifest, read_records, write_atomic
from tpo.training.run import history_csv, train_on_pairs

CURVES = REPORTS / "training" / "curves.csv"


@task(name="train", **TASK)
def train_model(work_dir: Path) -> tuple[VideoLMM, list[dict[str, float]]]:
    """Train, or go on from the last checkpoint in `work_dir`."""
    params = load_params()
    pairs = read_records(PAIRS / "pairs.jsonl", PreferencePair)
    videos = {video.id: video for video in read_records(CATALOG / "videos.jsonl", Video)}
    folder = video_folder(params.data.videos, params.runtime)
    in_order = params.mix.order == "easy_to_hard"
    return train_on_pairs(
        pairs, videos, folder, params.model, params.train, work_dir, in_order=in_order, replies=replies()
    )


@stage_flow("train")
def train() -> None:
    params = load_params()
    if not read_manifest(VALIDATION).facts.get("success"):
        raise UserError("The data did not pass validation, so nothing is trained on it. See reports/data_docs.")
    num_pairs = read_manifest(PAIRS).counts["training pairs"]
    wanted = {
        "model": params.model.model_dump(mode="json"),
        "train": params.train.model_dump(mode="json"),
        "order": params.mix.order,
    }
    with Stage("train", "pairs", digest(PAIRS / "pairs.jsonl"), wanted) as stage:
        tuned, history = train_model(stage.journal.folder / "checkpoints")
        write_atomic(CURVES, history_csv(history))
        run_id = log_stage(
            "train",
            params.register_.experiment,
            params=wanted,
            metrics={"num_pairs": num_pairs, "seconds": stage.clock.seconds},
            history=history,
            artifacts=[PAIRS / "manifest.json"],
        )
        stage.publish(
            TUNED,
            {".": lambda folder: tuned.save(folder)},
            items_in=num_pairs,
            items_out=num_pairs,
            seed=params.train.seed,
            facts={"mlflow_run_id": run_id, "base": params.model.base, "steps": int(max(e["step"] for e in history))},
        )


if __name__ == "__main__":
    run(train)
