"""The code MLflow runs to serve a registered model (models-from-code: this file is the model, no pickle).

    model = mlflow.pyfunc.load_model("models:/tpo-demo@champion")
    model.predict([{"video": "clip.mp4", "question": "What comes first?"}])     # -> ["a red star"]

Runs on its own: `tpo` travels with the model, next to this file. `tpo.registry.package` puts it together.
"""

import tempfile
from pathlib import Path

import mlflow
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from tpo.errors import UserError
from tpo.models import load_model
from tpo.models.checkpoint import check_base
from tpo.params import ModelParams
from tpo.registry.ask import answer_file
from tpo.video.probe import Prober


class VideoAnswerer(PythonModel):
    """Rows of {"video": path, "question": text} in, one answer a row out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights the way they were measured: same dtype, same number of frames."""
        checkpoint, config = Path(context.artifacts["checkpoint"]), context.model_config
        if config["base_digest"]:
            check_base(checkpoint, config["base_digest"])
        self._num_frames, self._max_new_tokens = config["num_frames"], config["max_new_tokens"]
        self._model = load_model(ModelParams(base=str(checkpoint), **config["model"]))

    # MLflow takes the signature from these hints.
    def predict(self, model_input: list[dict[str, str]]) -> list[str]:  # type: ignore[override]
        """Greedy answers, in the order of the rows.

        Raises:
            UserError: a row lacks a key, or its video is missing or unusable; names the row.
        """
        answers = []
        with tempfile.TemporaryDirectory() as scratch, Prober(Path(scratch)) as prober:
            for number, row in enumerate(model_input):
                try:
                    answers.append(self._answer(prober, row))
                except UserError as error:
                    raise UserError(f"Row {number}: {error}") from error
        return answers

    def _answer(self, prober: Prober, row: dict[str, str]) -> str:
        if set(row) != {"video", "question"}:
            raise UserError(f'expected the keys "video" and "question", got {sorted(row)}')
        return answer_file(self._model, prober, row["video"], row["question"], self._num_frames, self._max_new_tokens)


mlflow.models.set_model(VideoAnswerer())
