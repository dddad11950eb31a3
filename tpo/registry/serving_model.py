"""The code MLflow runs to serve a registered model (models-from-code: this file is the model, no pickle).

    mlflow models serve -m models:/tpo-demo@champion --env-manager local
    curl 127.0.0.1:5000/invocations -H 'Content-Type: application/json' \\
        -d '{"inputs": [{"video": "clip.mp4", "question": "What comes first?"}]}'     # {"predictions": ["a red star"]}

    model = mlflow.pyfunc.load_model("models:/tpo-demo@champion")
    model.predict([{"video": "clip.mp4", "question": "What comes first?"}])           # ["a red star"]

A server reads videos in the folder `TPO_VIDEO_ROOT` and nowhere else; without it, in the folder where it was started.
In Python any file may be asked about, unless it is set.

Runs on its own: `tpo` travels with the model, next to this file. `tpo.registry.package` puts it together.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import mlflow

# Private, so that a release of MLflow that names it otherwise ends here, and not at a server that reads any file.
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from tpo.errors import TooLongError, UserError
from tpo.models.checkpoint import check_base
from tpo.params import ModelParams
from tpo.registry.ask import find_video, read_frames
from tpo.video.decode import Frames
from tpo.video.probe import Prober

VIDEO_ROOT = "TPO_VIDEO_ROOT"
_log = logging.getLogger(__name__)


class AskedWronglyError(MlflowException, UserError):
    """A caller's mistake: over HTTP a 400 with the message alone, in Python a `UserError`."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)


class VideoAnswerer(PythonModel):
    """Rows of {"video": path, "question": text} in, one answer a row out. Threads may ask at the same time."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights the way they were measured: same dtype, same number of frames."""
        root = os.environ.get(VIDEO_ROOT)
        if root and not Path(root).is_dir():
            raise UserError(f"{VIDEO_ROOT} is {root!r}, and there is no such folder. Set it to the folder of videos.")
        from tpo.models.load import load_model  # MLflow runs this file also where a model is registered, without torch

        checkpoint, config = Path(context.artifacts["checkpoint"]), context.model_config
        if config["base_digest"]:
            check_base(checkpoint, config["base_digest"])
        self._num_frames, self._max_new_tokens = config["num_frames"], config["max_new_tokens"]
        self._model = load_model(ModelParams(base=str(checkpoint), **config["model"]), self._num_frames)
        self._running = Lock()
        # What was measured of a video is kept (0.3 MB an hour), so that the next question about it comes sooner.
        self._scratch = tempfile.TemporaryDirectory(prefix="tpo-")
        self._prober = Prober(Path(self._scratch.name))

    # MLflow takes the signature from these hints.
    def predict(self, model_input: list[dict[str, str]]) -> list[str]:  # type: ignore[override]
        """Greedy answers, in the order of the rows; a video that several rows are about is run once.

        Raises:
            AskedWronglyError: a row lacks a key, or its video is missing or unusable; names the row.
        """
        try:
            return self._predict(model_input)
        except MlflowException:
            raise
        except Exception as error:  # MLflow would send a 400 with the traceback
            _log.exception("A question could not be answered")
            raise MlflowException("The server failed at this; its log says why.", INTERNAL_ERROR) from error

    def _predict(self, rows: Sequence[dict[str, str]]) -> list[str]:
        root = _video_root()
        about: dict[Path, list[int]] = {}
        for number, row in enumerate(rows):
            with _faults_of(number):
                _check(row)
                about.setdefault(find_video(row["video"], root), []).append(number)
        answers: dict[int, str] = {}
        for path, numbers in about.items():
            with _faults_of(numbers[0]):
                frames = read_frames(self._prober, rows[numbers[0]]["video"], path, self._num_frames)
            answers |= self._answers(frames, {number: rows[number]["question"] for number in numbers})
        return [answers[number] for number in range(len(rows))]

    def _answers(self, frames: Frames, questions: dict[int, str]) -> dict[int, str]:
        """Of questions by their row's number. The model runs for one caller at a time: memory is made for that."""
        with self._running:
            try:
                said = self._model.generate(frames, list(questions.values()), self._max_new_tokens)
            except TooLongError:  # its message is for whoever has the model's folder and settings
                longest = max(questions, key=lambda number: len(self._model.prompt(None, questions[number])))
                raise AskedWronglyError(
                    f"Row {longest}: the question ({len(questions[longest])} characters) is longer than the model can "
                    f"take beside {self._num_frames} frames. Ask a shorter one."
                ) from None
        return dict(zip(questions, said, strict=True))


def _video_root() -> Path | None:
    """The folder to which paths are held. Whoever reaches a server must not have all files that it may read."""
    if root := os.environ.get(VIDEO_ROOT):
        return Path(root)
    served = _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get()  # type: ignore[no-untyped-call]
    return Path.cwd() if served else None


@contextmanager
def _faults_of(row: int) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise AskedWronglyError(f"Row {row}: {error}") from error


def _check(row: dict[str, str]) -> None:
    if set(row) != {"video", "question"}:
        raise UserError(f'expected the keys "video" and "question", got {sorted(row)}.')
    for key, text in row.items():
        if not text.strip():
            raise UserError(f"the {key} is empty.")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise UserError(f"the {key} holds half a character (a lone surrogate).")


mlflow.models.set_model(VideoAnswerer())
