"""Training in processes of its own, one for each device.

    accelerate launch --config_file configs/accelerate/ddp.yaml -m tpo.training.launch SPEC OUT

SPEC is a JSON file with the fields of `LaunchSpec`. The first process writes OUT: the tuned model, and beside it what
`Outcome` holds.
"""

import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread

from accelerate import PartialState
from pydantic import BaseModel, ConfigDict

from tpo.errors import UserError
from tpo.params import ModelParams, TrainParams
from tpo.records import PreferencePair, Rejection, Video
from tpo.training.run import Kept, Trained, train_on_pairs
from tpo.video.decode import VideoFolder
from tpo.video.frame_cache import FrameCache

_LAUNCHED_BY = "TPO_LAUNCHED_BY"  # environment variable: the process that waits for these
_MODEL, _OUTCOME, _ERROR = "model", "outcome.json", "error.txt"


class LaunchSpec(BaseModel):
    """Everything that `train_on_pairs` takes, as files and numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: list[PreferencePair]
    held_out: list[PreferencePair]
    videos: list[Video]
    videos_root: Path
    index_dir: Path
    frame_cache: Path
    frame_cache_bytes: int
    base: ModelParams
    params: TrainParams
    in_order: bool
    replies: Path
    features: Path
    work_dir: Path
    mlflow_run_id: str | None = None


class Outcome(BaseModel):
    """What came out of training, besides the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: list[dict[str, float]]
    num_processes: int
    num_pairs: int
    num_held_out: int
    set_aside: list[Rejection]
    held_out_set_aside: list[Rejection]
    num_shortened: int

    @classmethod
    def of(cls, trained: Trained) -> "Outcome":
        return cls(
            history=trained.history,
            num_processes=PartialState().num_processes,
            num_pairs=len(trained.fitted.pairs),
            num_held_out=len(trained.held_out.pairs),
            set_aside=trained.fitted.set_aside,
            held_out_set_aside=trained.held_out.set_aside,
            num_shortened=trained.fitted.num_shortened,
        )


def train_here(spec: LaunchSpec, out: Path) -> Outcome:
    """Train in this process, which may be one of several, and write the tuned model to `out`."""
    trained = train_on_pairs(
        spec.pairs,
        {video.id: video for video in spec.videos},
        VideoFolder(spec.videos_root, spec.index_dir, FrameCache(spec.frame_cache, spec.frame_cache_bytes)),
        spec.base,
        spec.params,
        spec.work_dir,
        held_out=spec.held_out,
        in_order=spec.in_order,
        kept=Kept(spec.replies, spec.features),
        mlflow_run_id=spec.mlflow_run_id,
    )
    outcome = Outcome.of(trained)
    trained.save(out / _MODEL)
    if PartialState().is_main_process:
        (out / _OUTCOME).write_text(outcome.model_dump_json(), encoding="utf-8")
    return outcome


def read_outcome(out: Path) -> Outcome:
    """Of a launch that ended.

    Raises:
        UserError: it ended with a user's mistake, or without a word.
    """
    if (out / _OUTCOME).is_file():
        return Outcome.model_validate_json((out / _OUTCOME).read_text(encoding="utf-8"))
    if (out / _ERROR).is_file():
        raise UserError((out / _ERROR).read_text(encoding="utf-8"))
    raise UserError("A process of training ended before its time; what it said is above. Run again to go on.")


def model_folder(out: Path) -> Path:
    """Where a launch leaves the tuned model."""
    return out / _MODEL


def environment(launched_by: int) -> dict[str, str]:
    """Environment variables for processes that end with the one that launched them, whose id this is.

    On SIGTERM they finish their step and save: PyTorch's launcher would kill them in the middle of it, after 30 s.
    """
    return {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600", **os.environ, _LAUNCHED_BY: str(launched_by)}


def _end_with(pid: int) -> None:
    """Do not outlive a process that was killed: when it is run again there would be two trainings."""
    while _is_alive(pid):
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main() -> None:
    spec, out = (Path(argument) for argument in sys.argv[1:])
    if _LAUNCHED_BY in os.environ:
        Thread(target=_end_with, args=(int(os.environ[_LAUNCHED_BY]),), daemon=True).start()
    out.mkdir(parents=True, exist_ok=True)
    try:
        train_here(LaunchSpec.model_validate_json(spec.read_text(encoding="utf-8")), out)
    except UserError as error:
        (out / _ERROR).write_text(str(error), encoding="utf-8")
        sys.exit(str(error))


if __name__ == "__main__":
    main()
