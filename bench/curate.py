"""What curation costs, and what is saved: `python bench/curate.py [--quick]`

On a demo world made afresh, with the demo's base model, in one process:
- pairs per minute from captions to judged pairs, offline, and the share of the time that each stage takes;
- the answer stage with everything shared (a video decoded once, each frame through the tower once, the prefix once for
  all questions about a view) against one call for each answer;
- calls in flight, judging the same answers by a server that takes 200 ms a call, as a share of the limit;
- what it costs to find everything done: the same again, with every answer and verdict remembered.

The last line is one JSON object.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tpo.curation.answers import Policy, answer_video, views_of
from tpo.curation.captions import caption_video
from tpo.curation.judging import Candidate, RuleJudge, candidates_of, judge_pairs
from tpo.curation.model_judging import ModelJudge
from tpo.curation.queries import ask_video
from tpo.demo.build import build_videos
from tpo.llm.load import open_chat
from tpo.models.load import load_model
from tpo.params import EndpointParams, Params, load_params
from tpo.records import Answer, Caption, PreferencePair, Query, Video
from tpo.replies import ReplyCache
from tpo.video.catalog import drop_same_bytes, find_videos
from tpo.video.decode import VideoFolder
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober

LATENCY_S = 0.2
CONCURRENCY = EndpointParams.model_fields["concurrency"].default


@dataclass
class Bench:
    """A small world, what was made of it so far, and how long that took by stage."""

    folder: Path
    params: Params
    videos: list[Video]
    policy: Policy
    captions: dict[str, list[Caption]] = field(default_factory=dict)
    queries: dict[str, list[Query]] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - began

    def answer(self) -> None:
        frames = VideoFolder(self.folder / "videos", self.folder / "frames", FrameCache(self.folder / "cache", 10**9))
        for video in self.videos:
            asked = self.queries[video.id]
            self.answers[video.id], _ = answer_video(
                self.policy, video, self.videos, frames, asked, self.params.answer, 0
            )


def make_world(folder: Path, params: Params, num_videos: int) -> Bench:
    root = folder / "videos"
    build_videos(root, params.demo.model_copy(update={"num_train_videos": num_videos, "seed": 7}))
    with Prober(folder / "frames") as prober:
        probed = [prober.probe(root, path) for path in find_videos(root, params.ingest.extensions)]
    videos, _ = drop_same_bytes([video for video in probed if isinstance(video, Video)])
    policy = Policy(load_model(params.model, params.answer.most_frames), ReplyCache(folder / "said.sqlite"), "")
    return Bench(folder, params, videos, policy)


def curate_offline(bench: Bench) -> list[PreferencePair]:
    """Captions to judged pairs, by rule; each stage is timed."""
    root, params = bench.folder / "videos", bench.params
    with bench.timed("caption"):
        bench.captions = {video.id: caption_video(video, root)[0] for video in bench.videos}
    with bench.timed("ask"):
        bench.queries = {v.id: ask_video(v, bench.captions[v.id], params.ask, 0)[0] for v in bench.videos}
    with bench.timed("answer"):
        bench.answer()
    with bench.timed("judge"):
        bench.candidates = [
            candidate
            for v in bench.videos
            for candidate in candidates_of(v, bench.captions[v.id], bench.queries[v.id], bench.answers[v.id])[0]
        ]
        judged = judge_pairs(bench.candidates, RuleJudge(), params.answer.full_frames)
    return [one for one in judged if isinstance(one, PreferencePair)]


def one_call_each(bench: Bench) -> float:
    """Seconds for every answer by itself: frames decoded, tower and decoder run for it alone."""
    plain, params = VideoFolder(bench.folder / "videos", bench.folder / "frames"), bench.params.answer
    began = time.perf_counter()
    for video in bench.videos:
        for query in bench.queries[video.id]:
            for view in views_of(query, video, bench.videos, params, 0).values():
                frames = plain.frames(video.path, view)
                bench.policy.model.answer(frames, query.question, params.max_new_tokens)
    return time.perf_counter() - began


@contextmanager
def provider() -> Iterator[str]:
    """The demo's server in a process of its own; its address."""
    command = [sys.executable, "-m", "tpo.demo.provider", "--port", "0", "--latency-s", str(LATENCY_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http\S+/v1", process.stdout.readline())
        assert found
        yield found[0]
        process.terminate()


def judge_by_server(bench: Bench, url: str) -> tuple[int, float]:
    """How many calls the candidates take, and how many seconds; none of them if they are remembered."""
    model = EndpointParams(url=url, model="demo", concurrency=CONCURRENCY)
    chat = open_chat(model, ReplyCache(bench.folder / "replies.sqlite"))
    began = time.perf_counter()
    judge_pairs(bench.candidates, ModelJudge(chat, bench.params.judge), bench.params.answer.full_frames)
    return chat.usage.calls, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few videos: under a minute")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = make_world(Path(folder), load_params(), num_videos=12 if args.quick else 80)
        pairs = curate_offline(bench)
        seconds, total_s = dict(bench.seconds), sum(bench.seconds.values())
        apart_s = one_call_each(bench)
        with bench.timed("answer again"):
            bench.answer()
        with provider() as url:
            calls, calls_s = judge_by_server(bench, url)
            calls_again, calls_again_s = judge_by_server(bench, url)
    assert calls_again == 0
    result = {
        "videos": len(bench.videos),
        "pairs": len(pairs),
        "pairs_per_minute": 60 * len(pairs) / total_s,
        "share_of_time": {stage: taken / total_s for stage, taken in seconds.items()},
        "speedup_shared_answers": apart_s / seconds["answer"],
        "share_of_concurrency_used": calls * LATENCY_S / (calls_s * CONCURRENCY),
        "answers_again_share": bench.seconds["answer again"] / seconds["answer"],
        "verdicts_again_share": calls_again_s / calls_s,
    }
    print(
        f"{len(bench.videos)} videos: {len(pairs)} pairs in {total_s:.1f} s, {result['pairs_per_minute']:.0f} a minute"
    )
    print("  of the time " + ", ".join(f"{stage} {taken / total_s:.1%}" for stage, taken in seconds.items()))
    print(f"answers: {seconds['answer']:.1f} s shared, {apart_s:.1f} s by one call each")
    print(f"server of {LATENCY_S:g} s: {calls} calls in {calls_s:.1f} s, {CONCURRENCY} at once allowed, ", end="")
    print(f"{result['share_of_concurrency_used']:.1%} of that used")
    print(f"again, all remembered: answers {bench.seconds['answer again']:.2f} s, verdicts {calls_again_s:.2f} s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
