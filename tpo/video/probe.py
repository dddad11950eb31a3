"""What a file really is, found out in a child process that is killed when it hangs.

    with Prober(timeout_s=60, index_dir=Path(".tpo/frames")) as prober:
        for path in files: video_or_rejection = prober.probe(root, path)

Native decoders crash, and hang holding the interpreter's lock; neither can be caught from within. So files are opened
by a child (`python -m tpo.video.probe`), which serves one file after the other until one of them kills it.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tpo.records import Reason, Rejection, Video
from tpo.video.decode import last_words

STAGE = "ingest"


def readable(path: Path) -> str:
    """A path as text that can be written down: bytes of a name that are not UTF-8 are shown as escapes."""
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")


class Prober:
    """A child process that measures files, started when first needed and again after a file has killed it.

    The `FrameIndex` of each file goes to `index_dir`, where `decode` finds it by the video's id.
    """

    def __init__(self, timeout_s: float, index_dir: Path):
        self._timeout_s, self.index_dir = timeout_s, index_dir
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def probe(self, root: Path, path: Path) -> Video | Rejection:
        """Measure one file below `root`: decode all of it, count its frames, read its timestamps.

        Returns the `Video`, or the `Rejection` that says why it cannot be used; never raises for a bad file.
        """
        name = readable(path.relative_to(root))

        def rejected(reason: Reason, detail: str) -> Rejection:
            return Rejection(stage=STAGE, item=name, reason=reason, detail=detail)

        if not Path(os.path.realpath(path)).is_relative_to(root.resolve()):  # `resolve` raises on links in a circle
            return rejected(Reason.OUTSIDE_FOLDER, "a link to a file outside the videos folder")
        if not path.is_file():
            return rejected(Reason.UNREADABLE, "not a regular file")
        if path.stat().st_size == 0:
            return rejected(Reason.EMPTY_FILE, "0 bytes")
        if name != path.relative_to(root).as_posix():
            return rejected(Reason.UNREADABLE, "the file's name is not UTF-8; rename it")
        facts = self._ask(path)
        if "reason" in facts:
            return rejected(Reason(facts["reason"]), facts["detail"])
        return Video(path=name, size_bytes=path.stat().st_size, **facts)

    def _ask(self, path: Path) -> dict[str, Any]:
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tpo.video.probe"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # decoders write there what the answer says anyway
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the child finds the `tpo` that we are
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone; reading says so
            asked = [str(path.absolute()), str(self.index_dir.absolute())]
            self._child.stdin.write(json.dumps(asked).encode() + b"\n")
            self._child.stdin.flush()
        ready, _, _ = select.select([self._child.stdout], [], [], self._timeout_s)
        if not ready:
            self._stop()
            return {
                "reason": Reason.PROBE_TIMEOUT,
                "detail": f"the decoder took longer than {self._timeout_s:g} s and was killed",
            }
        line = self._child.stdout.readline()
        if not line:
            code = self._child.wait()
            self._stop()
            return {"reason": Reason.PROBE_CRASH, "detail": f"the decoder crashed (exit code {code})"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _measure(path: str, index_dir: str) -> dict[str, Any]:
    """Runs in the child: the facts of `Video`, or a reason and its detail. Leaves the file's `FrameIndex`."""
    import av
    import numpy as np

    from tpo.video.frame_index import DamagedError, file_sha256, load_index, measure, state, video_stream

    file = Path(path)
    try:
        with av.open(path) as container:
            stream = video_stream(container)
            if stream is None:
                return {"reason": Reason.NO_VIDEO_STREAM, "detail": "the file has no video stream"}
            codec = stream.codec_context.codec.canonical_name
            has_audio = bool(container.streams.audio)
            first = next(container.decode(stream))
        before = state(file)
        video_id = file_sha256(file)
        saved = Path(index_dir) / f"{video_id}.npz"
        if not saved.is_file():
            measure(file).save(saved, before)
        index = load_index(Path(index_dir), file, video_id)
        if state(file) != before:
            return {"reason": Reason.VIDEO_CHANGED, "detail": "the file changed while it was read; run again"}
    except StopIteration:
        return {"reason": Reason.UNREADABLE, "detail": "not one frame can be decoded"}
    except (av.error.FFmpegError, DamagedError, ValueError) as error:
        return {"reason": Reason.UNREADABLE, "detail": last_words(error, path)}
    steps_s = np.diff(index.timestamps_s)
    sideways = first.rotation % 180 != 0
    return {
        "id": video_id,
        "duration_s": round(index.duration_s, 3),
        "fps": round(len(index.pts) / index.duration_s, 4),
        "num_frames": len(index.pts),
        "width": first.height if sideways else first.width,
        "height": first.width if sideways else first.height,
        "rotation_deg": first.rotation,
        "codec": codec,
        "is_vfr": bool(len(steps_s) and steps_s.max() - steps_s.min() > 0.1 * np.median(steps_s)),
        "has_audio": has_audio,
    }


def _serve() -> None:
    """The child: two JSON strings, a file and the folder for its index, come in, facts go out, line by line."""
    for line in sys.stdin:
        print(json.dumps(_measure(*json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
