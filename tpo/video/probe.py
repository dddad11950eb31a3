"""What a file really is, found out in a child process that is killed when it hangs or takes too much.

    with Prober(index_dir=Path(".tpo/frames")) as prober:
        video_or_rejection = prober.probe(root, path)

Native decoders crash, and hang holding the interpreter's lock; neither can be caught from within. So files are opened
by children (`python -m tpo.video.probe`), each of which serves one file after the other until one of them kills it.
"""

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tpo.params import ProbeParams
from tpo.records import Reason, Rejection, Video
from tpo.video.decode import last_words

if TYPE_CHECKING:
    from av.container import InputContainer

STAGE = "ingest"
_BEAT_S = 0.5
# FFmpeg's names of formats that hold a video. Others name files that do (playlists, numbered pictures): a video would
# be known by what its list says, and such a list leads out of the folder.
_CONTAINERS = (
    "3g2,3gp,asf,avi,flv,gif,h264,hevc,ivf,m4a,m4v,matroska,mj2,mov,mp4,mpeg,mpegts,"
    "mpegvideo,mxf,nut,obu,ogg,rm,webm,wtv"
)


def readable(path: Path) -> str:
    """A path as text that can be written down: bytes of a name that are not UTF-8 are shown as escapes."""
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")


class Prober:
    """Children that measure files, as many as callers at once; a free one is used again, so no file waits for a start.

    What is found out about each file goes to `index_dir`, where `decode` finds it by the video's id. Threads may share
    a prober.
    """

    def __init__(self, index_dir: Path, limits: ProbeParams | None = None):
        self.index_dir = index_dir
        self._limits = limits or ProbeParams()
        self._free: list[_Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._free:
            self._free.pop().kill()

    def probe(self, root: Path, path: Path) -> Video | Rejection:
        """Measure one file below `root`: decode all of it, count its frames, read its timestamps.

        Returns the `Video`, or the `Rejection` that says why it cannot be used; never raises for a bad file.
        """
        name = readable(path.relative_to(root))

        def rejected(reason: Reason, detail: str) -> Rejection:
            return Rejection(stage=STAGE, item=name, reason=reason, detail=detail)

        try:
            if not Path(os.path.realpath(path)).is_relative_to(root.resolve()):  # `resolve` raises on links in a circle
                return rejected(Reason.OUTSIDE_FOLDER, "a link out of the videos folder")
            if path.is_dir():
                return rejected(Reason.UNREADABLE, "a link to a folder; links to folders are not followed")
            if not path.is_file():
                return rejected(Reason.UNREADABLE, "not a regular file")
            if path.stat().st_size == 0:
                return rejected(Reason.EMPTY_FILE, "0 bytes")
        except OSError as error:  # gone since it was found, or on a disk that fails
            return rejected(Reason.UNREADABLE, last_words(error, str(path)))
        if name != path.relative_to(root).as_posix():
            return rejected(Reason.UNREADABLE, "the file's name is not UTF-8; rename it")
        facts = self._facts(path)
        if "reason" in facts:
            return rejected(Reason(facts["reason"]), facts["detail"])
        return Video(path=name, **facts)

    def _facts(self, path: Path) -> dict[str, Any]:
        child = self._free_child()
        try:
            facts = child.ask(path, self.index_dir)
        except BaseException:
            child.kill()  # in the middle of an answer, which must not be taken for the next file's
            raise
        if child.is_running():
            self._free.append(child)
        else:
            child.kill()
        return facts

    def _free_child(self) -> "_Child":
        while self._free:
            with contextlib.suppress(IndexError):  # another thread was faster
                child = self._free.pop()
                if child.is_running():
                    return child
                child.kill()
        return _Child(self._limits)


class _Child:
    """A process of this module's `_serve`."""

    def __init__(self, limits: ProbeParams):
        self._limits = limits
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-m", "tpo.video.probe", limits.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders write there what the answer says anyway
            bufsize=0,  # `select` must see every line that is there to be read
            env=os.environ
            | {
                # The child finds the `tpo` that we are, and not first one in the folder that it starts in: a
                # registered model brings its own.
                "PYTHONPATH": os.pathsep.join(sys.path),
                "PYTHONSAFEPATH": "1",
                "OPENBLAS_NUM_THREADS": "1",  # NumPy would set memory aside for a core each
            },
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, path: Path, index_dir: Path) -> dict[str, Any]:
        """The facts of `Video`, or a reason and its detail. Kills the process if it goes beyond the limits."""
        stdin, stdout, limits = self._process.stdin, self._process.stdout, self._limits
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone; reading says so
            stdin.write(json.dumps([str(path.absolute()), str(index_dir.absolute())]).encode() + b"\n")
        ends_at = time.monotonic() + limits.timeout_s
        while True:
            left_s = ends_at - time.monotonic()
            ready, _, _ = select.select([stdout], [], [], max(0, min(limits.silence_s, left_s)))
            if not ready:
                self.kill()
                took_too_long = f"decoding took longer than {limits.timeout_s:g} s and was stopped"
                hung = f"the decoder gave nothing for {limits.silence_s:g} s and was killed"
                return _reason(Reason.PROBE_TIMEOUT, hung if limits.silence_s < left_s else took_too_long)
            line = stdout.readline()
            if not line:
                return _reason(Reason.PROBE_CRASH, f"the decoder crashed (exit code {self._process.wait()})")
            answer: dict[str, Any] = json.loads(line)
            if answer:  # an empty one says that the child is alive
                return answer


def _reason(reason: Reason, detail: str) -> dict[str, Any]:
    return {"reason": reason, "detail": detail}


class _Heart:
    """In the child: tells the parent that it is alive, and the kernel to end it if it is not.

    The alarm needs no interpreter, so that a decoder that hangs ends even after a parent that was killed.
    """

    def __init__(self, silence_s: float):
        self._silence_s = silence_s
        self._last_s = 0.0

    def beat(self) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s > _BEAT_S:
            self._last_s = now_s
            signal.setitimer(signal.ITIMER_REAL, 2 * self._silence_s)
            print("{}", flush=True)

    def rest(self) -> None:
        self._last_s = 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)


def _open(path: str) -> "InputContainer":
    import av

    try:
        return av.open(path, options={"format_whitelist": _CONTAINERS})
    except av.error.ArgumentError as error:
        raise ValueError("a playlist, or in another format that videos are not kept in") from error


def _measure(path: str, index_dir: Path, heart: _Heart) -> dict[str, Any]:
    """Runs in the child: the facts of `Video`, or a reason and its detail. Leaves what was measured in `index_dir`."""
    import av
    import numpy as np

    from tpo.video.measure import DamagedError, file_sha256, is_measured, load_measured, measure, state, video_stream

    file = Path(path)
    try:
        with _open(path) as container:
            stream = video_stream(container)
            if stream is None:
                return _reason(Reason.NO_VIDEO_STREAM, "the file has no video stream")
            codec = stream.codec_context.codec.canonical_name
            has_audio = bool(container.streams.audio)
            first = next(container.decode(stream))
        before = state(file)
        video_id = file_sha256(file, heart.beat)
        if not is_measured(index_dir, video_id):
            measure(file, heart.beat).save(index_dir, video_id, before)
        if state(file) != before:
            return _reason(Reason.VIDEO_CHANGED, "the file changed while it was read; run again")
        measured = load_measured(index_dir, video_id)
    except StopIteration:
        return _reason(Reason.UNREADABLE, "not one frame can be decoded")
    except MemoryError:
        return _reason(Reason.PROBE_MEMORY, "decoding takes more than ingest.probe.max_memory_mb")
    except (av.error.FFmpegError, DamagedError, OSError, ValueError) as error:
        return _reason(Reason.UNREADABLE, last_words(error, path))
    index, sideways = measured.index, first.rotation % 180 != 0
    shown_s = np.diff(index.timestamps_s, append=index.duration_s)
    steps_s = shown_s[:-1]
    return {
        "id": video_id,
        "size_bytes": before[0],
        "duration_s": round(index.duration_s, 3),
        "last_frame_s": round(float(index.timestamps_s[-1]), 3),
        "longest_frame_s": round(float(shown_s.max()), 3),
        "fps": round(len(index.pts) / index.duration_s, 4),
        "num_frames": len(index.pts),
        "num_restarts": len(index.restarts),
        "width": first.height if sideways else first.width,
        "height": first.width if sideways else first.height,
        "rotation_deg": first.rotation % 360,
        "codec": codec,
        "is_vfr": bool(len(steps_s) and steps_s.max() - steps_s.min() > 0.1 * np.median(steps_s)),
        "has_audio": has_audio,
        "brightness": round(measured.brightness, 2),
        "change": round(measured.change, 3),
    }


def _serve(limits: ProbeParams) -> None:
    """The child: two JSON strings, a file and the folder for its index, come in, facts go out, line by line."""
    max_bytes = limits.max_memory_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))
    heart = _Heart(limits.silence_s)
    for line in sys.stdin:
        path, index_dir = json.loads(line)
        heart.beat()
        answer = _measure(path, Path(index_dir), heart)
        heart.rest()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve(ProbeParams.model_validate_json(sys.argv[1]))
