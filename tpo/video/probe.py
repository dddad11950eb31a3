"""What a file really is, found out in a child process that is killed when it hangs.

    with Prober(timeout_s=60) as prober:
        for path in files: video_or_rejection = prober.probe(root, path)

Native decoders crash, and hang holding the interpreter's lock; neither can be caught from within. So files are opened
by a child (`python -m tpo.video.probe`), which serves one file after the other until one of them kills it.
"""

import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tpo.records import Reason, Rejection, Video
from tpo.video.decode import frame_starts_s, last_words

STAGE = "ingest"


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def readable(path: Path) -> str:
    """A path as text that can be written down: bytes of a name that are not UTF-8 are shown as escapes."""
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")


class Prober:
    """A child process that measures files, started when first needed and again after a file has killed it."""

    def __init__(self, timeout_s: float):
        self._timeout_s = timeout_s
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
        return Video(id=file_sha256(path), path=name, size_bytes=path.stat().st_size, **facts)

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
            self._child.stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
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


def _measure(path: str) -> dict[str, Any]:
    """Runs in the child: the facts of `Video` that come from decoding, or a reason and its detail."""
    import av
    import decord
    import numpy as np

    try:
        with av.open(path) as container:
            if container.format.name == "mpegts":  # no index: decord does not find back to the first frame
                detail = "an MPEG transport stream; put it in an MP4: ffmpeg -i FILE -c copy OUT.mp4"
                return {"reason": Reason.UNREADABLE, "detail": detail}
            if not container.streams.video:
                return {"reason": Reason.NO_VIDEO_STREAM, "detail": "the file has no video stream"}
            stream = container.streams.video[0]
            codec = stream.codec_context.codec.canonical_name
            has_audio = bool(container.streams.audio)
            rotations_deg = [frame.rotation for frame in container.decode(stream)]
    except (av.error.FFmpegError, ValueError) as error:
        return {"reason": Reason.UNREADABLE, "detail": f"PyAV: {last_words(error, path)}"}
    try:
        reader = decord.VideoReader(path, num_threads=1)
        starts_s = frame_starts_s(reader)
        end_s = reader.get_frame_timestamp(len(reader) - 1)[1]
        if not len(starts_s) == len(rotations_deg) > 0:
            detail = f"{len(rotations_deg)} frames can be decoded, decord shows {len(starts_s)}; encode the file again"
            return {"reason": Reason.UNREADABLE, "detail": detail}
        for first in range(0, len(starts_s), 64):  # decode everything once: damage in the middle shows here
            pixels = reader.get_batch(list(range(first, min(first + 64, len(starts_s))))).asnumpy()
    except (decord.DECORDError, RuntimeError) as error:
        return {"reason": Reason.UNREADABLE, "detail": f"decord: {last_words(error, path)}"}
    steps_s = np.diff(starts_s)
    duration_s = float(end_s - starts_s[0])
    if duration_s <= 0:  # a single frame without a duration of its own
        duration_s = 1 / reader.get_avg_fps()
    return {
        "duration_s": round(duration_s, 3),
        "fps": round(len(starts_s) / duration_s, 4),
        "num_frames": len(starts_s),
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "rotation_deg": rotations_deg[0],
        "codec": codec,
        "is_vfr": bool(len(steps_s) and steps_s.max() - steps_s.min() > 0.1 * np.median(steps_s)),
        "has_audio": has_audio,
    }


def _serve() -> None:
    """The child: a JSON string with a path comes in, a JSON object with its facts goes out, line by line."""
    for line in sys.stdin:
        print(json.dumps(_measure(json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
