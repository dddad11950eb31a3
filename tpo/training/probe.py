"""A few multiple-choice questions out of held-out pairs, to see during training whether answers get better.

Benchmarks stay out of it: what decides which checkpoint is kept must not be what the model is measured on afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accelerate import PartialState
from accelerate.utils import gather_object

from tpo.models.video_lmm import VideoLMM
from tpo.records import PreferencePair, Video
from tpo.training.fitting import lost_later_named
from tpo.video.decode import VideoFolder

_MAX_OPTIONS = 4


@dataclass(frozen=True)
class Probe:
    """Questions of pairs, each with its chosen answer first among the options."""

    questions: Sequence[tuple[PreferencePair, tuple[str, ...]]]
    videos: Mapping[str, Video]
    folder: VideoFolder

    def accuracy(self, model: VideoLMM) -> float:
        """Share of questions whose chosen answer is the most probable option. Processes share the work.

        Raises:
            UserError: a video cannot be decoded any more.
        """
        state = PartialState()
        own = self.questions[state.process_index :: state.num_processes]
        right = [self._is_right(model, pair, options) for pair, options in own]
        together: list[bool] = gather_object(right)
        return sum(together) / len(together)

    def _is_right(self, model: VideoLMM, pair: PreferencePair, options: Sequence[str]) -> bool:
        with lost_later_named(f"pair {pair.id}"):
            frames = self.folder.frames(self.videos[pair.video_id].path, pair.view)
        scores = model.answer_logprobs(frames, pair.question, options)
        # A mean over tokens, so that short options have no advantage.
        means = [score / len(model.answer_ids(option)) for score, option in zip(scores, options, strict=True)]
        return max(means) == means[0]


def make_probe(
    pairs: Sequence[PreferencePair], most: int, videos: Mapping[str, Video], folder: VideoFolder
) -> Probe | None:
    """Up to `most` questions: a pair's two answers, and chosen answers of other pairs of its question type.

    None if there is nothing to ask.
    """
    chosen = sorted({(pair.question_type, pair.chosen) for pair in pairs})
    questions = []
    for pair in sorted(pairs, key=lambda one: one.id)[:most]:
        others = [text for kind, text in chosen if kind == pair.question_type]
        start = int(pair.id.encode().hex(), 16) % max(1, len(others))
        options = dict.fromkeys([pair.chosen, pair.rejected, *others[start:], *others[:start]])
        questions.append((pair, tuple(options)[:_MAX_OPTIONS]))
    return Probe(questions, videos, folder) if questions else None
