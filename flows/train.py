"""train: data/pairs → models/tuned. DPO + α·SFT on full video and question; the curves go to MLflow."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from prefect import task

from flows.frames import FRAME_CACHE, INDEXES
from flows.replies import REPLIES
from flows.stage import CATALOG, JOURNALS, PAIRS, REPORTS, TASK, TUNED, VALIDATION, Stage, run, stage_flow
from tpo.errors import UserError
from tpo.models.identity import model_id
from tpo.params import load_params
from tpo.records import PreferencePair, Video
from tpo.registry.tracking import log_outcome, start_run, tracking_uri
from tpo.store import digest, read_manifest, read_records, write_atomic
from tpo.training.launch import LaunchSpec, Outcome, environment, model_folder, read_outcome, train_here
from tpo.training.run import history_csv

CURVES = REPORTS / "training" / "curves.csv"
HELD_OUT = REPORTS / "training" / "held_out.csv"
REJECTED = REPORTS / "training" / "rejected.jsonl"


@task(name="train", **TASK)
def train_model(work_dir: Path, out: Path, run_id: str) -> Outcome:
    """Train, or go on from the last checkpoint in `work_dir`; here, or in processes that `accelerate` starts.

    Reads the pairs itself: Prefect looks into all that a task is handed.
    """
    params = load_params()
    spec = LaunchSpec(
        pairs=read_records(PAIRS / "pairs.jsonl", PreferencePair),
        held_out=read_records(PAIRS / "held_out.jsonl", PreferencePair),
        videos=read_records(CATALOG / "videos.jsonl", Video),
        videos_root=params.data.videos,
        index_dir=INDEXES,
        frame_cache=FRAME_CACHE,
        frame_cache_bytes=int(params.runtime.frame_cache_gb * 1e9),
        base=params.model,
        params=params.train,
        in_order=params.mix.order == "easy_to_hard",
        replies=REPLIES,
        features=JOURNALS / "features",
        work_dir=work_dir,
        mlflow_run_id=run_id,
    )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if params.train.launch is None:
        return train_here(spec, out)
    return _launch(spec, out, params.train.launch)


def _launch(spec: LaunchSpec, out: Path, config: str) -> Outcome:
    if not Path(config).is_file():
        raise UserError(f"train.launch names {config!r}, and there is no such file. See configs/accelerate.")
    file = out / "spec.json"
    file.write_text(spec.model_dump_json(), encoding="utf-8")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    command = [*launcher, "-m", "tpo.training.launch", str(file), str(out)]
    variables = environment(os.getpid()) | {"MLFLOW_TRACKING_URI": tracking_uri()}
    with subprocess.Popen(command, env=variables, start_new_session=True) as processes:
        try:
            processes.wait()
        except BaseException:
            # All of them: the launcher alone would end and leave the others. They save and end.
            os.killpg(processes.pid, signal.SIGTERM)
            raise
    return read_outcome(out)


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
        out = stage.journal.folder / "out"
        with start_run("train", params.register_.experiment, params=wanted) as run_id:
            outcome = train_model(stage.journal.folder / "checkpoints", out, run_id)
            metrics = {"num_pairs": outcome.num_pairs, "seconds": stage.clock.seconds}
            log_outcome(metrics, [PAIRS / "manifest.json"])
        write_atomic(CURVES, history_csv(outcome.history))
        write_atomic(HELD_OUT, history_csv(outcome.history, "eval_loss"))
        rejections = [*outcome.set_aside, *outcome.held_out_set_aside]
        write_atomic(REJECTED, "".join(f"{one.model_dump_json()}\n" for one in rejections))
        stage.publish(
            TUNED,
            {".": lambda folder: _move_all(model_folder(out), folder)},
            items_in=num_pairs,
            items_out=outcome.num_pairs,
            set_aside=outcome.set_aside,
            seed=params.train.seed,
            counts={
                "pairs shown fewer frames": outcome.num_shortened,
                "held-out pairs": outcome.num_held_out,
                "held-out pairs set aside": len(outcome.held_out_set_aside),
            },
            facts={
                "processes": outcome.num_processes,
                "mlflow_run_id": run_id,
                "base": params.model.base,
                "base_id": model_id(params.model),
                "pairs_digest": digest(PAIRS / "pairs.jsonl"),
                "steps": int(max(entry["step"] for entry in outcome.history)),
            },
        )


def _move_all(src: Path, dst: Path) -> None:
    for path in src.iterdir():
        shutil.move(path, dst)


if __name__ == "__main__":
    run(train)
