"""Benchmark questions about long videos: the evaluation stage against one question at a time.

    python bench/evaluate.py            # a small random-weight model on the CPU, some minutes
    python bench/evaluate.py --quick    # a smaller one, under a minute on two cores
    python bench/evaluate.py --size 7b --device cuda --dtype bfloat16 --frames 64    # LLaVA-Video's real shape

Real H.264 files, three questions a video, two models after each other as base and tuned. "One at a time" is what common
harnesses do: every question decodes its video and runs tower and decoder over it, for every model. Then the stage runs
once more, as after a kill or with another confidence level: nothing is asked again. The last line is one JSON object.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
from generate import make_model

from tpo.evaluation.asking import Job, plan
from tpo.evaluation.preflight import check_video, group_by_video, video_path
from tpo.evaluation.run import Examinee, examine
from tpo.models.video_lmm import VideoLMM
from tpo.params import EvaluateParams
from tpo.records import Item, Role, Video
from tpo.replies import ReplyCache
from tpo.video.decode import VideoFolder
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober

QUESTIONS_PER_VIDEO = 3
ROLES: tuple[Role, ...] = ("base", "tuned")
FPS, SIZE_PX = 10, (640, 360)


def write_video(path: Path, seconds: int, seed: int) -> None:
    """Coloured noise that drifts, so that frames differ and are as dear to decode as those of a film."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = SIZE_PX
    picture = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = picture.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS, options={"g": "50", "crf": "28", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * FPS):
            shifted = np.roll(picture, 3 * number, axis=1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shifted, format="rgb24")))
        file.mux(stream.encode())


def make_items(root: Path, num_videos: int, seconds: int) -> list[list[Item]]:
    """Videos with their questions, three each."""
    items = []
    for video in range(num_videos):
        write_video(root / f"bench/{video}.mp4", seconds, video)
        for number in range(QUESTIONS_PER_VIDEO):
            question = " ".join(f"w{(7 * number + word) % 200}" for word in range(20 + number))
            options = tuple(f"w{(11 * option + number) % 200} w{option}" for option in range(4))
            items.append(
                Item(
                    id=f"bench/{video}-{number}", benchmark="bench", video=f"{video}.mp4", question=question,
                    options=options, gold=number, duration_group="short", category="none",
                )
            )  # fmt: skip
    return group_by_video(items)


def run_stage(
    models: dict[Role, VideoLMM], groups: list[list[Item]], videos: list[Video], root: Path, at: Path,
    params: EvaluateParams,
) -> int:  # fmt: skip
    """As flows/evaluate.py does it; what was said is kept in `at`. How many predictions there are."""
    folder = VideoFolder(root, root / ".frames", FrameCache(at / "frames", 10**10))
    said = ReplyCache(at / "said.sqlite")
    jobs = [
        Job(video_path(g), video_path(g), v, plan(g, v, {}, params, (), 0)) for g, v in zip(groups, videos, strict=True)
    ]
    count = 0
    for role, model in models.items():
        count += sum(len(found) for _, found in examine(Examinee(role, model, said, ""), folder, jobs, params))
    said.close()
    return count


def run_one_at_a_time(
    models: dict[Role, VideoLMM], groups: list[list[Item]], videos: list[Video], root: Path, params: EvaluateParams
) -> int:
    """Every question decodes its video and runs it through the model."""
    folder = VideoFolder(root, root / ".frames")
    count = 0
    for model in models.values():
        for group, video in zip(groups, videos, strict=True):
            for ask in plan(group, video, {}, params, (), 0):
                assert ask.view is not None
                frames = folder.frames(video_path(group), ask.view)
                scored = [ask] if ask.candidates else []
                written = [] if ask.candidates else [ask]
                model.examine(
                    frames,
                    [one.prompt for one in scored],
                    [one.candidates for one in scored],
                    [one.prompt for one in written],
                    params.max_new_tokens or 0,
                )
                count += 1
    return count


def timed(work: Callable[[], int], device: str) -> tuple[float, int]:
    """Seconds, and predictions made."""
    started = time.perf_counter()
    count = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller model, fewer videos, one repeat")
    parser.add_argument("--size", choices=["small", "7b"], default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--videos", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    size, num_videos, repeats = ("quick", 2, 1) if args.quick else (args.size, args.videos, args.repeats)
    result: dict[str, Any] = {"size": size, "device": args.device, "frames": args.frames, "videos": num_videos}
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        groups = make_items(root, num_videos, seconds=30)
        with Prober(root / ".frames") as prober:
            videos = [video for group in groups if isinstance(video := check_video(root, group, prober), Video)]
        model = make_model(size, args.device, getattr(torch, args.dtype), root)
        twin = VideoLMM(**{**vars(model), "id": "tuned"})
        models: dict[Role, VideoLMM] = dict(zip(ROLES, (model, twin), strict=True))
        scored = EvaluateParams(num_frames=args.frames, prompts="question", confidence=0.95, bootstrap_samples=100)
        both = scored.model_copy(update={"max_new_tokens": 16})
        (root / "warm").mkdir()  # whatever happens once only
        run_stage(models, groups[:1], videos[:1], root, root / "warm", both)
        run_one_at_a_time(models, groups[:1], videos[:1], root, both)
        for name, params in (("", scored), ("_with_generation", both)):
            ways: dict[str, list[tuple[float, int]]] = {"stage": [], "each": [], "again": []}
            for number in range(repeats):  # in turns, so that what else the machine does meets both
                at = root / f"kept{name}{number}"
                at.mkdir()
                arguments = (models, groups, videos, root, at, params)
                ways["stage"].append(timed(partial(run_stage, *arguments), args.device))
                ways["again"].append(timed(partial(run_stage, *arguments), args.device))
                ways["each"].append(timed(partial(run_one_at_a_time, *arguments[:-2], params), args.device))
            seconds = {way: statistics.median(s for s, _ in runs) for way, runs in ways.items()}
            count = ways["stage"][0][1]
            assert {n for runs in ways.values() for _, n in runs} == {count}
            result[f"speedup_3_questions_per_video{name}"] = seconds["each"] / seconds["stage"]
            result[f"predictions_per_s{name}"] = count / seconds["stage"]
            result[f"resumed_ms_per_prediction{name}"] = 1000 * seconds["again"] / count
            what = "log-probabilities and written answers" if name else "log-probabilities"
            print(
                f"{what}: {count} predictions of {len(models)} models. One at a time {seconds['each']:.1f} s "
                f"({count / seconds['each']:.2f}/s), the stage {seconds['stage']:.1f} s "
                f"({count / seconds['stage']:.2f}/s): {seconds['each'] / seconds['stage']:.2f} times as fast; "
                f"all over again from what is kept {1000 * seconds['again'] / count:.1f} ms a prediction",
                flush=True,
            )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
