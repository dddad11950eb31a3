"""What the frozen tower makes of the videos: decoded ahead of time, and computed once for all pairs of a video."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from tpo.models.family import VideoInput
from tpo.models.video_lmm import VideoLMM
from tpo.records import Video, View
from tpo.training.feature_cache import FeatureCache
from tpo.video.decode import VideoFolder

_DECODED_AHEAD = 4  # ours: prepared frames of a video take 0.2 GB at 96 frames of 384 × 384
_KEPT_BYTES = 2 * 2**30  # ours: of main memory, for what comes again soon


@dataclass(frozen=True)
class EncodedVideo:
    """A video as its family describes it, without its pixels, and the tower's output, in main memory."""

    video: VideoInput
    features: list[torch.Tensor]

    @property
    def num_bytes(self) -> int:
        return sum(one.nbytes for one in self.features)


class VideoFeatures:
    """The tower's output for views of videos.

    Views are decoded in the background in the order in which they were announced, a few ahead. What was encoded is kept
    while there is room, and on disk too if there is a `disk` for it.
    """

    def __init__(
        self, model: VideoLMM, videos: Mapping[str, Video], folder: VideoFolder, disk: FeatureCache | None = None
    ) -> None:
        self._model, self._videos, self._folder, self._disk = model, videos, folder, disk
        self._kept: OrderedDict[View, EncodedVideo] = OrderedDict()
        self._announced: deque[View] = deque()
        self._ahead: dict[View, Future[VideoInput]] = {}
        self._decoders = ThreadPoolExecutor(_DECODED_AHEAD, "decode")

    def announce(self, views: Iterable[View]) -> None:
        """Begin to decode what will be asked for soon."""
        self._announced.extend(views)
        self._fill()

    def encoded(self, view: View) -> EncodedVideo:
        """A view's description and the tower's output for it.

        Raises:
            DecodeError: its video cannot be decoded any more.
        """
        decoding = self._ahead.pop(view, None)
        self._fill()
        found = self._kept.get(view) or self._read(view) or self._encode(view, decoding)
        self._kept[view] = found
        self._kept.move_to_end(view)
        while len(self._kept) > 1 and sum(one.num_bytes for one in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return found

    def prepared(self, view: View) -> VideoInput:
        """Frames as the tower takes them; see `encoded` for what is raised."""
        return self._model.prepare(self._folder.frames(self._videos[view.video_id].path, view))

    def _fill(self) -> None:
        while self._announced and len(self._ahead) < _DECODED_AHEAD:
            view = self._announced.popleft()
            if view not in self._ahead and view not in self._kept and not (self._disk and self._disk.has(view)):
                self._ahead[view] = self._decoders.submit(self.prepared, view)

    def _read(self, view: View) -> EncodedVideo | None:
        found = self._disk.read(view) if self._disk else None
        return None if found is None else EncodedVideo(*found)

    def _encode(self, view: View, decoding: Future[VideoInput] | None) -> EncodedVideo:
        if decoding is None and len(self._ahead) == _DECODED_AHEAD:
            self._ahead.pop(next(iter(self._ahead)))  # announced, and never asked for
        video = self.prepared(view) if decoding is None else decoding.result()
        with torch.no_grad():
            features = [one.cpu() for one in self._model.encode_video(video)]
        found = EncodedVideo(replace(video, pixels=video.pixels[:0]), features)
        if self._disk:
            self._disk.write(view, found.video, found.features)
        return found
