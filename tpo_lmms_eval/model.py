"""The model: lmms-eval's prompts, and frames from our own decoder and sampler, so that both hold for all of a run."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from tqdm import tqdm

from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.params import ModelParams
from tpo.records import Rejection
from tpo.video.decode import DecodeError, Frames, VideoFolder
from tpo.video.probe import Prober
from tpo.video.sample import dense

_MAX_NEW_TOKENS = 128  # ours, for tasks that do not say


class Tpo(lmms):  # type: ignore[misc] # lmms-eval has no types
    """Greedy or sampled answers of one of our checkpoints, the questions about one video together.

    Args:
        pretrained: a checkpoint folder, an adapter folder or a hub id.
        num_frames: evenly over the video, first and last included (`tpo.video.sample.dense`).
        batch_size: answers that are written together.
        index_dir: where what is measured about a video is kept for the next run.
        settings: of `tpo.params.ModelParams`.
    """

    def __init__(
        self,
        pretrained: str,
        num_frames: int = 32,
        dtype: str = "bfloat16",
        batch_size: int | str = 1,
        device: str | None = None,
        index_dir: str = ".tpo/frames",
        max_batch_size: int | None = None,  # noqa: ARG002 - lmms-eval gives it to every model
        **settings: Any,
    ):
        super().__init__()
        where = (device or "auto").split(":")[0]
        params = ModelParams.model_validate({"base": str(pretrained), "dtype": dtype, "device": where, **settings})
        self._model = load_model(params, num_frames)
        self._num_frames = num_frames
        self._batch_size = int(batch_size)
        self._prober = Prober(Path(index_dir))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One text per request, cut at the task's stop strings.

        Raises:
            UserError: a request is not about exactly one video, or its video cannot be read. lmms-eval has no status
                for either, and an answer without the video would look like one with it.
        """
        # Requests of one video and one way of decoding are answered together; dictionaries keep their order.
        runs: dict[tuple[int, float], dict[Path, list[int]]] = {}
        for number, request in enumerate(requests):
            _, settings, to_visual, doc_id, task, split = request.args
            video = _one_video(to_visual, self.task_dict[task][split][doc_id], task)
            runs.setdefault(_decoding(settings), {}).setdefault(video, []).append(number)
        texts: dict[int, str] = {}
        for (max_new_tokens, temperature), groups in runs.items():
            asked = self._asked(groups, requests)
            answers = self._model.generate_many(asked, max_new_tokens, self._batch_size, temperature)
            for numbers, generated in zip(groups.values(), answers, strict=True):
                texts |= {n: _cut(one.text, requests[n].args[1]) for n, one in zip(numbers, generated, strict=True)}
        return [texts[number] for number in range(len(requests))]

    def _asked(self, groups: dict[Path, list[int]], requests: Sequence[Any]) -> Iterator[tuple[Frames, list[str]]]:
        for path, numbers in tqdm(groups.items(), desc="videos", disable=self.rank != 0):
            yield self._frames(path), [requests[number].args[0] for number in numbers]

    def _frames(self, path: Path) -> Frames:
        file = path.resolve()  # hub caches hold links
        video = self._prober.probe(file.parent, file)
        if isinstance(video, Rejection):
            raise UserError(f"{path} cannot be used ({video.reason}: {video.detail}). Download it again.")
        try:
            return VideoFolder(file.parent, self._prober.index_dir).frames(file.name, dense(video, self._num_frames))
        except DecodeError as error:
            raise UserError(f"{path} cannot be decoded: {error}. Download it again.") from error

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("tpo answers generation tasks; `tpo.evaluation` scores options by log-probability")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("tpo answers tasks of one round; of several it was not taught")


def _one_video(to_visual: Callable[[Any], Sequence[Any]], doc: Any, task: str) -> Path:
    visuals = to_visual(doc)
    if len(visuals) != 1 or not isinstance(visuals[0], (str, Path)):
        kinds = ", ".join(type(visual).__name__ for visual in visuals) or "nothing"
        raise UserError(f"{task} shows {kinds}; tpo answers tasks that show one video file (longvideobench_val_v, …).")
    return Path(visuals[0])


def _decoding(settings: dict[str, Any]) -> tuple[int, float]:
    if settings.get("num_beams", 1) != 1:
        raise UserError(f"The task asks for {settings['num_beams']} beams; tpo writes one answer. Set num_beams=1.")
    temperature = float(settings.get("temperature") or 0) if settings.get("do_sample", True) else 0.0
    return int(settings.get("max_new_tokens", _MAX_NEW_TOKENS)), temperature


def _cut(text: str, settings: dict[str, Any]) -> str:
    stops = settings.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text
