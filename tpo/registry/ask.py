"""One question about one video file: probe, sample, decode, answer. What `tpo ask` and the served model do."""

from pathlib import Path

from tpo.errors import UserError
from tpo.models import VideoLMM
from tpo.records import Rejection
from tpo.video.decode import DecodeError, decode
from tpo.video.probe import Prober
from tpo.video.sample import dense


def answer_file(
    model: VideoLMM, prober: Prober, video: str, question: str, num_frames: int, max_new_tokens: int
) -> str:
    """The model's greedy answer about `num_frames` frames evenly over the whole file.

    Raises:
        UserError: there is no such file, or it cannot be used as a video; says why.
    """
    path = Path(video).resolve()
    if not path.is_file():
        raise UserError(f"There is no video file {video!r} (looked at {path}). Give the path of one.")
    probed = prober.probe(path.parent, path)
    if isinstance(probed, Rejection):
        raise UserError(f"{video!r} cannot be used ({probed.reason.value}): {probed.detail}. Give another video.")
    try:
        frames = decode(path, dense(probed, num_frames), prober.index_dir)
    except DecodeError as error:
        raise UserError(f"{video!r} could not be decoded: {error}. Give another video.") from error
    return model.answer(frames, question, max_new_tokens)
