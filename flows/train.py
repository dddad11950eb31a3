"""train: data/pairs → models/tuned. DPO + α·SFT on full video and question; the curves go to MLflow."""

from pathlib import Path

from prefect import task

from flows.frames import video_folder
from flows.replies import replies
from flows.stage import CATALOG, PAIRS, REPORTS, TASK, TUNED, VALIDATION, Stage, run, stage_flow
from tpo.errors import UserError
from tpo.params import load_params
from tpo.records import PreferencePair, Video
from tpo.registry.tracking import log_stage
from tpo.store import digest, read_manifest, read_records, write_atomic
from tpo.training.run import Trained, history_csv, train_on_pairs

CURVES = REPORTS / "training" / "curves.csv"
REJECTED = REPORTS / "training" / "rejected.jsonl"


@task(name="train", **TASK)
def train_model(work_dir: Path) -> Trained:
    """Train, or go on from the last checkpoint in `work_dir`."""
    params = load_params()
    pairs, held_out = (read_records(PAIRS / f"{part}.jsonl", PreferencePair) for part in ("pairs", "held_out"))
    videos = {video.id: video for video in read_records(CATALOG / "videos.jsonl", Video)}
    folder = video_folder(params.data.videos, params.runtime)
    in_order = params.mix.order == "easy_to_hard"
    return train_on_pairs(
        pairs, videos, folder, params.model, params.train, work_dir, held_out=held_out, in_order=in_order,
        replies=replies(),
    )  # fmt: skip


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
    with Stage("train", "pairs", digest(PAIRS / "pairs.jsonl", PAIRS / "held_out.jsonl"), wanted) as stage:
        trained = train_model(stage.journal.folder / "checkpoints")
        write_atomic(CURVES, history_csv(trained.history))
        rejections = [*trained.fitted.set_aside, *trained.held_out.set_aside]
        write_atomic(REJECTED, "".join(f"{one.model_dump_json()}\n" for one in rejections))
        run_id = log_stage(
            "train",
            params.register_.experiment,
            params=wanted,
            metrics={"num_pairs": num_pairs, "seconds": stage.clock.seconds},
            history=trained.history,
            artifacts=[PAIRS / "manifest.json"],
        )
        stage.publish(
            TUNED,
            {".": lambda folder: trained.model.save(folder)},
            items_in=num_pairs,
            items_out=len(trained.fitted.pairs),
            set_aside=trained.fitted.set_aside,
            seed=params.train.seed,
            counts={
                "pairs shown fewer frames": trained.fitted.num_shortened,
                "held-out pairs": len(trained.held_out.pairs),
                "held-out pairs set aside": len(trained.held_out.set_aside),
            },
            facts={
                "mlflow_run_id": run_id,
                "base": params.model.base,
                "steps": int(max(entry["step"] for entry in trained.history)),
            },
        )


if __name__ == "__main__":
    run(train)
