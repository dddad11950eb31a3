"""Does TPO work on the demo, and what does it owe its gain to? `python bench/demo_science.py [--quick]`

Everything is made afresh for every seed: the training videos, the evaluation videos, the pairs and the training order.
Printed for each base model: tuned minus base on unseen long videos with its 95 % interval (videos resampled), for TPO
on three seeds; then, on the first seed, the controls: the pairs swapped, SFT on the chosen answers alone, DPO alone,
and localized, comprehensive or both at equal pair counts; accuracy at 8 to 96 frames; a needle grid (depth × length).
The last line is one JSON object. About six minutes a base on one core.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tpo.curation.answers import Policy, answer_video
from tpo.curation.captions import caption_video
from tpo.curation.judging import RuleJudge, candidates_of, judge_pairs
from tpo.curation.queries import ask_video
from tpo.demo.benchmarks import write_benchmarks
from tpo.demo.build import build_videos
from tpo.demo.world import plan_events, write_video
from tpo.evaluation.asking import Job, plan
from tpo.evaluation.benchmarks import load_benchmarks
from tpo.evaluation.comparison import Comparison, compare
from tpo.evaluation.preflight import check_video, group_by_video, video_path, without_video
from tpo.evaluation.run import Examinee, examine
from tpo.llm.rules import localized_questions
from tpo.models.load import load_model
from tpo.models.video_lmm import VideoLMM
from tpo.params import Params, TrainParams, load_params
from tpo.records import Granularity, Item, Prediction, PreferencePair, Rejection, Role, Video
from tpo.replies import ReplyCache
from tpo.training.run import train_on_pairs
from tpo.video.catalog import drop_same_bytes, find_videos
from tpo.video.decode import VideoFolder, decode
from tpo.video.probe import Prober
from tpo.video.sample import dense

FRAME_COUNTS = (8, 16, 32, 64, 96)
NEEDLE_EVENTS = (4, 8, 12, 16)
NEEDLE_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class World:
    """One seed's videos, and what the pipeline made of them up to the pairs."""

    root: Path
    videos: dict[str, Video]
    pairs: list[PreferencePair]
    groups: list[tuple[list[Item], Video | Rejection]]


def make_world(folder: Path, params: Params, model: VideoLMM, seed: int) -> World:
    """The pipeline from video files to judged pairs, without its orchestration."""
    demo = params.demo.model_copy(update={"seed": seed})
    root, benchmarks = folder / "videos", folder / "benchmarks"
    build_videos(root, demo)
    write_benchmarks(
        benchmarks, demo.num_eval_videos, demo.questions_per_eval_video, demo.min_events, demo.max_events, seed
    )
    pairs: list[PreferencePair] = []
    policy = Policy(model, ReplyCache(folder / "replies.sqlite"), code="")
    with Prober(folder / "frames") as prober:
        probed = [prober.probe(root, path) for path in find_videos(root, params.ingest.extensions)]
        videos, _ = drop_same_bytes([video for video in probed if isinstance(video, Video)])
        for video in videos:
            captions, _ = caption_video(video, root)
            queries, _ = ask_video(video, captions, params.ask, seed)
            frames = VideoFolder(root, folder / "frames")
            answers, _ = answer_video(policy, video, videos, frames, queries, params.answer, seed)
            candidates, _ = candidates_of(video, captions, queries, answers)
            judged = judge_pairs(candidates, RuleJudge(), params.answer.full_frames)
            pairs += [one for one in judged if isinstance(one, PreferencePair)]
        items, _ = load_benchmarks(benchmarks)
        groups = [(items, check_video(benchmarks, items, prober)) for items in group_by_video(items)]
    return World(folder, {video.id: video for video in videos}, pairs, groups)


def tuned_on(world: World, pairs: list[PreferencePair], params: Params, train: TrainParams) -> VideoLMM:
    with tempfile.TemporaryDirectory() as scratch:
        return train_on_pairs(
            pairs, world.videos, VideoFolder(world.root / "videos", world.root / "frames"), params.model, train,
            Path(scratch),
        )[0]  # fmt: skip


def measure(world: World, base: VideoLMM, tuned: VideoLMM, params: Params, num_frames: int) -> Comparison:
    """Tuned against base over all three benchmarks at a frame count."""
    folder = VideoFolder(world.root / "benchmarks", world.root / "frames")
    settings = params.evaluate.model_copy(update={"num_frames": num_frames, "max_new_tokens": None, "controls": None})
    jobs = [
        Job(video_path(items), video_path(items), video, plan(items, video, {}, settings, (), seed=0))
        for items, video in world.groups
        if isinstance(video, Video)
    ]
    models: dict[Role, VideoLMM] = {"base": base, "tuned": tuned}
    found: dict[Role, list[Prediction]] = {}
    for role, model in models.items():
        with tempfile.TemporaryDirectory() as scratch:  # nothing is remembered: a tuned model has its base's id
            examinee = Examinee(role, model, ReplyCache(Path(scratch) / "said.sqlite"), code="")
            found[role] = [one for _, said in examine(examinee, folder, jobs, settings) for one in said]
        for items, video in world.groups:
            if isinstance(video, Rejection):
                found[role] += without_video(items, role, video, settings)
    return compare(found["base"], found["tuned"], confidence=0.95, samples=10_000, seed=0)[0]


def swapped(pair: PreferencePair) -> PreferencePair:
    return pair.model_copy(
        update={
            "chosen": pair.rejected,
            "rejected": pair.chosen,
            "chosen_view": pair.rejected_view,
            "rejected_view": pair.chosen_view,
        }
    )


def controls(
    pairs: list[PreferencePair], train: TrainParams
) -> Iterator[tuple[str, list[PreferencePair], TrainParams]]:
    """Name, pairs and training settings of each control."""
    by_kind = {kind: [pair for pair in pairs if pair.granularity is kind] for kind in Granularity}
    local, wide = by_kind[Granularity.LOCALIZED], by_kind[Granularity.COMPREHENSIVE]
    yield "pairs swapped", [swapped(pair) for pair in pairs], train
    yield "SFT on chosen alone", pairs, train.model_copy(update={"dpo_weight": 0.0, "sft_alpha": 1.0})
    yield "DPO alone", pairs, train.model_copy(update={"sft_alpha": 0.0})
    count = min(len(local), len(wide))
    half = count // 2
    yield f"localized only, {count} pairs", local[:count], train
    yield f"comprehensive only, {count} pairs", wide[:count], train
    yield f"both, {2 * half} pairs", local[:half] + wide[:half], train


def needle_grid(model: VideoLMM, num_frames: int, per_cell: int) -> list[list[float]]:
    """Share of right answers about one event, its colour or what follows it, by depth (rows) and events (columns)."""
    grid = np.zeros((len(NEEDLE_DEPTHS), len(NEEDLE_EVENTS)))
    rng = np.random.default_rng([7, 3])
    with tempfile.TemporaryDirectory() as scratch, Prober(Path(scratch)) as prober:
        for column, num_events in enumerate(NEEDLE_EVENTS):
            for _ in range(per_cell):
                path = Path(scratch) / "needle.mp4"
                events = plan_events(rng, num_events)
                write_video(path, events, phase=float(rng.uniform(0, 6.28)))
                video = prober.probe(path.parent, path)
                assert isinstance(video, Video)
                frames = decode(path, dense(video, num_frames), prober.index_dir)
                captions = [event.caption for event in events]
                for row, depth in enumerate(NEEDLE_DEPTHS):
                    at = round(depth * (num_events - 2))
                    asked = localized_questions(captions[at : at + 2], captions)
                    question = asked[0] if rng.random() < 0.5 else asked[2]
                    said = model.answer(frames, question.question, max_new_tokens=12)
                    grid[row, column] += (said == question.answer) / per_cell
    return grid.round(2).tolist()


def show(name: str, comparison: Comparison, num_pairs: int) -> dict[str, float]:
    base, tuned, gain = comparison.before.accuracy.value, comparison.after.accuracy.value, comparison.difference
    print(
        f"  {name:34} {num_pairs:5} pairs  {100 * base:5.1f} → {100 * tuned:5.1f}   "
        f"{100 * gain.value:+5.1f} [{100 * gain.low:+5.1f}, {100 * gain.high:+5.1f}]",
        flush=True,
    )
    return {"pairs": num_pairs, "base": base, "tuned": tuned, **gain.model_dump()}


def study(checkpoint: str, params: Params, seeds: list[int], folder: Path, *, with_controls: bool) -> dict[str, object]:
    """Everything about one base model."""
    params = params.model_copy(update={"model": params.model.model_copy(update={"base": checkpoint})})
    base = load_model(params.model.of(checkpoint))
    num_frames, per_cell = params.evaluate.num_frames, 4 if len(seeds) == 1 else 20
    result: dict[str, object] = {"base": checkpoint}
    print(f"{checkpoint}, {num_frames} frames, tuned minus base in points with 95 % interval")
    for seed in seeds:
        world = make_world(folder / f"{Path(checkpoint).name}-{seed}", params, base, seed)
        train = params.train.model_copy(update={"seed": seed})
        tuned = tuned_on(world, world.pairs, params, train)
        result[f"tpo_seed_{seed}"] = show(
            f"TPO, seed {seed}", measure(world, base, tuned, params, num_frames), len(world.pairs)
        )
        if seed == seeds[0] and with_controls:
            for name, pairs, settings in controls(world.pairs, train):
                other = tuned_on(world, pairs, params, settings)
                result[name] = show(name, measure(world, base, other, params, num_frames), len(pairs))
            for count in FRAME_COUNTS:
                result[f"frames_{count}"] = show(
                    f"TPO at {count} frames", measure(world, base, tuned, params, count), len(world.pairs)
                )
            for name, model in (("base", base), ("tuned", tuned)):
                grid = needle_grid(model, num_frames, per_cell)
                result[f"needle_{name}"] = grid
                print(f"  needle, {name}: rows depth {NEEDLE_DEPTHS}, columns {NEEDLE_EVENTS} events")
                print("\n".join("    " + "  ".join(f"{value:4.2f}" for value in row) for row in grid), flush=True)
        shutil.rmtree(world.root)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few videos, no controls: under a minute")
    parser.add_argument("--bases", nargs="+", default=["demo/checkpoint"], help="checkpoint folders")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    args = parser.parse_args()
    params = load_params()
    if args.quick:
        small = params.demo.model_copy(update={"num_train_videos": 20, "num_eval_videos": 15})
        params, args.seeds = params.model_copy(update={"demo": small}), args.seeds[:1]
    with tempfile.TemporaryDirectory() as folder:
        results = [study(base, params, args.seeds, Path(folder), with_controls=not args.quick) for base in args.bases]
    print(json.dumps({"bases": results}))


if __name__ == "__main__":
    main()
