"""One question about one video file: find, probe, sample, decode, answer. What `tpo ask` and the served model do."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from tpo.errors import UserError
from tpo.records import Record, Rejection
from tpo.registry.tracking import redact, tracking_uri
from tpo.video.decode import DecodeError, Frames, decode
from tpo.video.probe import Prober
from tpo.video.sample import dense

if TYPE_CHECKING:
    from tpo.models.video_lmm import VideoLMM

_SCRIPT = Path(__file__).with_name("ask_registered.py")
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # a model or version; an alias


def answer_file(
    model: "VideoLMM", prober: Prober, video: str, question: str, num_frames: int, max_new_tokens: int
) -> str:
    """The model's greedy answer about `num_frames` frames evenly over the whole file.

    Raises:
        UserError: there is no such file, or it cannot be used as a video; says why.
    """
    return model.answer(read_frames(prober, video, find_video(video), num_frames), question, max_new_tokens)


def find_video(video: str, root: Path | None = None) -> Path:
    """The file behind a path, links followed.

    Args:
        root: nothing outside this folder is given, and relative paths begin there; none = any file.

    Raises:
        UserError: there is no such file. Of what lies outside `root` it is not told whether it is there.
    """
    try:
        path = Path(os.path.realpath(video if root is None else root / video))
        found = (root is None or path.is_relative_to(os.path.realpath(root))) and path.is_file()
    except (OSError, ValueError):  # may not be looked at, or can be no path: too long, with a null
        found = False
    if not found and root is None:
        raise UserError(f"There is no video file {video!r} (looked in {Path.cwd()}). Give the path of one.")
    if not found:
        raise UserError(f"There is no video file {video!r} in the folder that may be asked about. Give a path in it.")
    return path


def read_frames(prober: Prober, video: str, path: Path, num_frames: int) -> Frames:
    """Frames evenly over the whole of a file that was found for the name `video`.

    Raises:
        UserError: it cannot be used as a video; says why.
    """
    probed = prober.probe(path.parent, path)
    if isinstance(probed, Rejection):
        raise UserError(f"{video!r} cannot be used ({probed.reason.value}): {probed.detail}. Give another video.")
    try:
        return decode(path, dense(probed, num_frames), prober.index_dir)
    except DecodeError as error:
        raise UserError(f"{video!r} could not be decoded: {error}. Give another video.") from error


class Said(Record):
    """What came of asking a packaged model."""

    answer: str | None = None
    error: str = Field("", description="one line, redacted")
    code: str = Field("", description="MLflow's, of the error")
    loaded: bool = Field(default=False, description="the model was, before it was asked")


def ask_registered(uri: str, video: str, question: str) -> str:
    """The answer of a registered model (`models:/NAME@ALIAS`), run on the code that travels with it.

    Raises:
        UserError: the registry does not answer, it has no such model, the model cannot be loaded, or not answer.
    """
    said = ask_package(uri, video, question)
    if said.answer is not None:
        return said.answer
    if said.loaded:
        raise UserError(said.error.removeprefix("Row 0: "))
    if said.code in _NOT_THERE:
        raise UserError(
            f"The registry has no {uri} ({said.error}). `tpo registry` shows what it has, and "
            "`tpo ask --model models/tuned` asks the tuned model, promoted or not."
        )
    if said.code:
        raise UserError(f"{uri} could not be loaded: {said.error} Is MLFLOW_TRACKING_URI right, and the registry up?")
    raise UserError(f"{uri} could not be loaded: {said.error}")


def ask_package(uri: str, video: str, question: str) -> Said:
    """Load a packaged model in a process of its own, whose `tpo` is the package's, and ask it.

    Args:
        uri: of MLflow, or a folder.
    """
    # A person waits; MLflow would try for minutes.
    settings = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    environment = settings | os.environ | {"MLFLOW_TRACKING_URI": tracking_uri()}
    environment.pop("TPO_VIDEO_ROOT", None)  # a person may ask about any file
    command = [sys.executable, "-P", str(_SCRIPT), uri, video, question]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return Said(error=f"its process was killed (signal {-done.returncode}); it may have had too little memory")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"its process ended with code {done.returncode}"])[-1]
        return Said(error=redact(last))
    said = Said.model_validate_json(done.stdout.splitlines()[-1])
    return said.model_copy(update={"error": next(iter(redact(said.error).splitlines()), "")})
