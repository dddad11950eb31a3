"""The plugin on real videos and a real checkpoint. lmms-eval's own base class is replaced where it is not installed:
its requirements exclude ours (pyproject.toml says how both were run together)."""

import importlib
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tpo.demo.world import plan_events, write_video
from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.params import ModelParams
from tpo.records import Video
from tpo.video.decode import VideoFolder
from tpo.video.probe import Prober
from tpo.video.sample import dense

NUM_FRAMES = 4
GREEDY = {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "until": ["\n\n"]}


class Lmms:
    """What is used of lmms_eval.api.model.lmms."""

    rank = 0

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}


@dataclass(frozen=True)
class Manifest:
    model_id: str
    simple_class_path: str


@dataclass(frozen=True)
class Request:
    args: tuple[Any, ...]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, member, thing in (
        ("lmms_eval.api.model", "lmms", Lmms),
        ("lmms_eval.models.registry_v2", "ModelManifest", Manifest),
    ):
        module = ModuleType(name)
        setattr(module, member, thing)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "tpo_lmms_eval.model", raising=False)
    return importlib.import_module("tpo_lmms_eval.model")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, plan_events(rng, 2), 0.0)
    return [folder / "a.mp4", folder / "b.mp4"]


def requests(
    model: Any, asked: Sequence[tuple[str, Path]], settings: Sequence[dict[str, Any]] = (GREEDY,)
) -> list[Request]:
    """One request per question and video, in a task's form."""
    model.task_dict = {"task": {"test": [{"video": str(path)} for _, path in asked]}}
    to_visual: Callable[[dict[str, str]], list[str]] = lambda doc: [doc["video"]]  # noqa: E731
    return [
        Request((question, settings[number % len(settings)], to_visual, number, "task", "test"))
        for number, (question, _) in enumerate(asked)
    ]


def load(plugin: ModuleType, checkpoint: Path, folder: Path) -> Any:
    return plugin.Tpo(
        pretrained=str(checkpoint),
        num_frames=NUM_FRAMES,
        dtype="float32",
        batch_size="2",
        device="cpu",
        index_dir=str(folder / "index"),
    )


def test_every_request_gets_what_our_own_model_answers_in_the_order_asked(
    plugin: ModuleType, tiny_checkpoint: Path, videos: list[Path], tmp_path: Path
) -> None:
    a, b = videos
    (tmp_path / "link.mp4").symlink_to(b)  # hub caches hold links
    asked = [("What comes first?", a), ("What comes last?", tmp_path / "link.mp4"), ("What color is the star?", a)]
    model = load(plugin, tiny_checkpoint, tmp_path)
    settings = [GREEDY, {**GREEDY, "max_new_tokens": 3}]
    answers = model.generate_until(requests(model, asked, settings))

    own = load_model(ModelParams(base=str(tiny_checkpoint), dtype="float32", device="cpu"))
    with Prober(tmp_path / "own") as prober:
        for number, ((question, path), answer) in enumerate(zip(asked, answers, strict=True)):
            file = path.resolve()
            video = prober.probe(file.parent, file)
            assert isinstance(video, Video)
            frames = VideoFolder(file.parent, tmp_path / "own").frames(file.name, dense(video, NUM_FRAMES))
            expected = own.generate(frames, [question], settings[number % 2]["max_new_tokens"])[0]
            assert answer == expected.split("\n\n")[0]
    assert len(set(answers)) > 1, "they could not be told apart otherwise"


def test_each_video_is_encoded_once_for_all_its_questions(
    plugin: ModuleType, tiny_checkpoint: Path, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(plugin, tiny_checkpoint, tmp_path)
    encoded = []
    encode = model._model.family.encode
    monkeypatch.setattr(model._model.family, "encode", lambda *args: encoded.append(1) or encode(*args))
    asked = [(f"What is number {n}?", videos[n % 2]) for n in range(6)]
    assert len(model.generate_until(requests(model, asked))) == 6
    assert len(encoded) == 2


def test_answers_end_at_the_tasks_stop_strings(plugin: ModuleType) -> None:
    assert plugin._cut("B\n\nBecause", GREEDY) == "B"
    assert plugin._cut("B. no", {"until": "."}) == "B"
    assert plugin._cut("B", {"until": None}) == "B"


def test_a_video_that_cannot_be_read_ends_the_run_and_is_never_answered_blind(
    plugin: ModuleType, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    model = load(plugin, tiny_checkpoint, tmp_path)
    with pytest.raises(UserError, match=r"broken\.mp4 cannot be used \(unreadable: .*Download it again"):
        model.generate_until(requests(model, [("What?", tmp_path / "broken.mp4")]))
    with pytest.raises(UserError, match=r"absent\.mp4 cannot be used"):
        model.generate_until(requests(model, [("What?", tmp_path / "absent.mp4")]))


def test_tasks_that_it_cannot_do_are_refused(
    plugin: ModuleType, tiny_checkpoint: Path, videos: list[Path], tmp_path: Path
) -> None:
    model = load(plugin, tiny_checkpoint, tmp_path)
    for visuals, shown in (([], "nothing"), ([b"", "a.mp4"], "bytes, str")):
        with pytest.raises(UserError, match=f"task shows {shown}; tpo answers tasks that show one video file"):
            plugin._one_video(lambda _, visuals=visuals: visuals, {}, "task")
    with pytest.raises(UserError, match="asks for 4 beams"):
        model.generate_until(requests(model, [("What?", videos[0])], [{**GREEDY, "num_beams": 4}]))
    with pytest.raises(NotImplementedError):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError):
        model.generate_until_multi_round([])


def test_lmms_eval_is_told_where_the_model_is(plugin: ModuleType) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, function = project["entry-points"]["lmms_eval.models"]["tpo"].split(":")
    manifest = getattr(importlib.import_module(module), function)()
    module, name = manifest.simple_class_path.rsplit(".", 1)
    assert (manifest.model_id, getattr(importlib.import_module(module), name)) == ("tpo", plugin.Tpo)


def test_the_core_does_not_import_it() -> None:
    told = "import sys, tpo.cli, tpo.evaluation.compatible; print([m for m in sys.modules if 'lmms_eval' in m])"
    run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
