"""The shipped base model has what the demo needs: the skill on short clips, a bad habit on long videos."""

from pathlib import Path

import numpy as np
import pytest

from tpo.demo.pretrain import kind_of
from tpo.demo.world import Event, plan_events, write_video
from tpo.llm.rules import RuleQuestion, comprehensive_questions, localized_questions
from tpo.models.load import load_model
from tpo.models.video_lmm import VideoLMM
from tpo.params import ModelParams
from tpo.records import Video
from tpo.video.decode import decode
from tpo.video.probe import Prober
from tpo.video.sample import dense

CHECKPOINT = Path(__file__).parents[2] / "demo" / "checkpoint"


@pytest.fixture(scope="module")
def base() -> VideoLMM:
    return load_model(ModelParams(base=str(CHECKPOINT), dtype="float32", device="cpu"))


def share_right(model: VideoLMM, folder: Path, num_events: tuple[int, int], frames_per_event: float) -> float:
    """Share of questions about fresh H.264 files that the model answers word for word."""
    rng = np.random.default_rng([5, 9])
    asked, expected = [], []
    with Prober(folder) as prober:
        for number in range(16):
            events = plan_events(rng, int(rng.integers(*num_events, endpoint=True)))
            path = folder / f"{number}.mp4"
            write_video(path, events, phase=float(rng.uniform(0, 6.28)))
            video = prober.probe(folder, path)
            assert isinstance(video, Video)
            frames = decode(path, dense(video, max(4, round(len(events) * frames_per_event))), folder)
            questions = sample_questions(rng, events)
            asked.append((frames, [question.question for question in questions]))
            expected += [question.answer for question in questions]
    said = [answer for frames, questions in asked for answer in model.generate(frames, questions, max_new_tokens=12)]
    return sum(a == b for a, b in zip(said, expected, strict=True)) / len(expected)


def sample_questions(rng: np.random.Generator, events: list[Event]) -> list[RuleQuestion]:
    """One question of each kind there is."""
    captions = [event.caption for event in events]
    possible = [*localized_questions(captions, captions), *comprehensive_questions(captions)]
    shuffled = [possible[i] for i in rng.permutation(len(possible))]
    return list({kind_of(question.question): question for question in shuffled}.values())


def test_it_answers_nine_of_ten_questions_about_short_clips(base: VideoLMM, tmp_path: Path) -> None:
    assert share_right(base, tmp_path, (1, 8), frames_per_event=2.7) >= 0.9


def test_it_often_fails_on_long_videos(base: VideoLMM, tmp_path: Path) -> None:
    assert 0.3 < share_right(base, tmp_path, (10, 14), frames_per_event=2.7) < 0.7


def test_it_is_small_and_has_a_card() -> None:
    weights = CHECKPOINT / "model.safetensors"
    assert weights.stat().st_size <= 4_000_000
    assert "python -m tpo.demo.pretrain" in (CHECKPOINT / "README.md").read_text()
