"""The review server: one page, and what it asks for. It listens on loopback alone.

    serve(Path(), load_params(), reviewer="anna", port=0, announce=print)

Nothing that a client sends is ever a path: pages are a fixed few, pairs and items go by their position, and a frame is
given only if a view shows it.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tpo.curation.reviews import REVIEWS
from tpo.errors import UserError
from tpo.params import Params
from tpo.records import PreferencePair, Record, Review, ReviewVerdict, View
from tpo.review.access import Access
from tpo.review.agreement import summarize
from tpo.review.frames import FrameStore, NoSuchFrameError
from tpo.review.items import ItemFilter, ItemShelf
from tpo.review.journal import ReviewJournal
from tpo.review.pairs import PairFilter, PairShelf, letter_of_chosen, views_of
from tpo.video.decode import VideoFolder
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober

_MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_A_YEAR = "private, max-age=31536000, immutable"  # of a frame: its address names the video by content
_MOST_ROWS = 200
F = TypeVar("F", PairFilter, ItemFilter)
Said = Literal["A", "B", "tie", "bad_question", "look", "undo"]


class Saying(BaseModel):
    """What the page posts: which answer is better, or that the reviewer looks first, or takes a verdict back."""

    model_config = ConfigDict(extra="forbid")
    pair_id: str = Field(max_length=64)
    said: Said


class Reviewing:
    """What a running server knows. Handlers run in threads."""

    def __init__(self, root: Path, params: Params, reviewer: str):
        self.root, self.params, self.reviewer = root, params, reviewer
        self.journal = ReviewJournal(root / REVIEWS)
        self.frames = FrameStore()
        self.prober = Prober(root / ".tpo/frames", params.ingest.probe)
        self._cache = FrameCache(root / ".tpo/frame_cache", int(params.runtime.frame_cache_gb * 1e9))
        self._loading_pairs, self._loading_items = threading.Lock(), threading.Lock()  # no tab waits for the other's
        self._writing = threading.Lock()

    @cached_property
    def _pairs(self) -> PairShelf:
        return PairShelf(self.root, self.params)

    @cached_property
    def _items(self) -> ItemShelf:
        return ItemShelf(self.root, self.params)

    @property
    def pairs(self) -> PairShelf:
        with self._loading_pairs:
            return self._pairs

    @property
    def items(self) -> ItemShelf:
        with self._loading_items:
            return self._items

    def load(self) -> None:
        """Read all records, while the browser starts. What is wrong with one is told to the page, which asks again."""
        with contextlib.suppress(UserError):
            self.pairs  # noqa: B018
            self.items  # noqa: B018

    def folder(self, root: Path) -> VideoFolder:
        return VideoFolder(root, self.prober.index_dir, self._cache)

    def offer_pair(self, position: int) -> PreferencePair:
        """Let the frames of a pair be asked for."""
        pair = self.pairs.pair(position)
        folder = self.folder(self.root / self.params.data.videos)
        path = self.pairs.videos[pair.video_id].path
        self.frames.offer(pair.video_id, folder, path, views_of(pair))
        return pair

    def say(self, saying: Saying) -> None:
        """Append what was said of a pair, and whether it was said blind."""
        verdicts = {"tie": ReviewVerdict.TIE, "bad_question": ReviewVerdict.BAD_QUESTION}
        chosen = letter_of_chosen(saying.pair_id, self.reviewer)
        verdict = verdicts.get(saying.said)
        if saying.said in ("A", "B"):
            verdict = ReviewVerdict.ACCEPT if saying.said == chosen else ReviewVerdict.REJECT
        with self._writing:
            self.journal.append(
                Review(
                    pair_id=saying.pair_id,
                    reviewer=self.reviewer,
                    verdict=verdict,
                    chosen_shown_as=chosen,
                    unblinded=saying.said == "look" or self.journal.has_looked(saying.pair_id, self.reviewer),
                    at=datetime.now(UTC).replace(microsecond=0),
                )
            )

    def card(self, position: int, *, looked: bool = False) -> dict[str, Any]:
        """A pair; with a verdict of this reviewer's, or when they look, also which answer is which."""
        pair_id = self.pairs.pair(position).id
        reviews = self.journal.standing().get(pair_id, {})
        mine = reviews.get(self.reviewer)
        origin = self.pairs.origin(position, reviews, self.reviewer) if mine or looked else None
        return {
            "card": self.pairs.card(position, self.reviewer).model_dump(mode="json"),
            "mine": mine,
            "origin": origin and origin.model_dump(mode="json"),
        }


class Handlers:
    """What the page asks for. Nearly all of it runs in threads."""

    def __init__(self, reviewing: Reviewing):
        self._reviewing = reviewing
        folder = files("tpo.review").joinpath("page")
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    def application(self) -> Starlette:
        """The routes, without the guard at the door (`Access`)."""
        return Starlette(
            routes=[
                Route("/", self.file),
                Route("/page/{name}", self.file),
                Route("/api/overview/{shelf}", self.overview),
                Route("/api/summary", self.summary),
                Route("/api/pairs", self.find_pairs),
                Route("/api/pairs/rows", self.pair_rows),
                Route("/api/pairs/{position:int}", self.pair),
                Route("/api/reviews", self.say, methods=["POST"]),
                Route("/api/items", self.find_items),
                Route("/api/items/rows", self.item_rows),
                Route("/api/items/{position:int}", self.item),
                Route("/api/items/{position:int}/look", self.look),
                Route("/frames/{video}/{ms:int}-{height:int}.jpg", self.frame),
            ],
            exception_handlers={UserError: _told, ClientDisconnect: _gone},
        )

    def file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in self._files:
            raise HTTPException(404)
        media = f"{_MEDIA[Path(name).suffix]}; charset=utf-8"
        return Response(self._files[name], media_type=media, headers={"Cache-Control": "no-cache"})

    def overview(self, request: Request) -> Response:
        """What one tab has; the other's records may be read still."""
        name = request.path_params["shelf"]
        if name not in ("pairs", "items"):
            raise HTTPException(404)
        shelf: PairShelf | ItemShelf = self._reviewing.pairs if name == "pairs" else self._reviewing.items
        told = {"count": len(shelf), "choices": shelf.choices(), "problem": shelf.problem}
        return _json(told | {"reviewer": self._reviewing.reviewer})

    def summary(self, _: Request) -> Response:
        self._reviewing.journal.refresh()
        return _json(summarize(self._reviewing.pairs.kept, self._reviewing.journal.standing()))

    def find_pairs(self, request: Request) -> Response:
        wanted = _filter(request, PairFilter)
        self._reviewing.journal.refresh()
        said = self._reviewing.journal.standing()
        return _json(self._reviewing.pairs.find(wanted, said, self._reviewing.reviewer))

    def pair_rows(self, request: Request) -> Response:
        pairs, said = self._reviewing.pairs, self._reviewing.journal.standing()
        positions = _positions(request, len(pairs))
        return _json([pairs.row(one, said, self._reviewing.reviewer).model_dump(mode="json") for one in positions])

    def pair(self, request: Request) -> Response:
        position = _position(request, len(self._reviewing.pairs))
        shown = self._reviewing.offer_pair(position)
        in_one_pass = BackgroundTask(self._reviewing.frames.prepare, shown.video_id, views_of(shown))
        return _json(self._reviewing.card(position), background=in_one_pass)

    async def say(self, request: Request) -> Response:
        try:
            saying = Saying.model_validate_json(await request.body())
        except ValidationError as error:
            raise HTTPException(400, detail=error.errors()[0]["msg"]) from error
        return await run_in_threadpool(self._say, saying)

    def _say(self, saying: Saying) -> Response:
        position = self._reviewing.pairs.position(saying.pair_id)
        if position is None:
            raise HTTPException(404)
        self._reviewing.say(saying)
        return _json(self._reviewing.card(position, looked=saying.said == "look"))

    def find_items(self, request: Request) -> Response:
        return _json(self._reviewing.items.find(_filter(request, ItemFilter)))

    def item_rows(self, request: Request) -> Response:
        items = self._reviewing.items
        return _json([items.row(one).model_dump(mode="json") for one in _positions(request, len(items))])

    def item(self, request: Request) -> Response:
        return _json(self._reviewing.items.card(_position(request, len(self._reviewing.items))))

    def look(self, request: Request) -> Response:
        items = self._reviewing.items
        found, videos = items.look(_position(request, len(items)), self._reviewing.prober)
        for path, view in videos:
            self._reviewing.frames.offer(view.video_id, self._reviewing.folder(path.parent), path.name, [view])
        return _json(found, background=BackgroundTask(self._prepare, [view for _, view in videos]))

    def _prepare(self, views: Sequence[View]) -> None:
        for view in views:
            self._reviewing.frames.prepare(view.video_id, [view])

    def frame(self, request: Request) -> Response:
        wanted = request.path_params
        try:
            jpeg = self._reviewing.frames.jpeg(wanted["video"], wanted["ms"], wanted["height"])
        except NoSuchFrameError as error:
            raise HTTPException(404, detail=str(error)) from error
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": _A_YEAR})


def serve(root: Path, params: Params, *, reviewer: str, port: int, announce: Callable[[str], None]) -> None:
    """Run until it is interrupted. `announce` is given the address as soon as it can be opened.

    Raises:
        UserError: the port is taken.
    """
    import uvicorn

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        raise UserError(f"Port {port} cannot be used: {error.strerror}. Give another one, or none.") from error
    listening.listen()  # who opens the address at once waits instead of being refused
    port = listening.getsockname()[1]
    reviewing = Reviewing(root, params, reviewer)
    access = Access(Handlers(reviewing).application(), port)
    announce(f"http://127.0.0.1:{port}/?token={access.token}")
    config = uvicorn.Config(access, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    threading.Thread(target=reviewing.load, daemon=True).start()
    with listening, reviewing.prober, contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def _json(content: object, background: BackgroundTask | None = None) -> Response:
    text = content.model_dump_json() if isinstance(content, Record) else json.dumps(content, ensure_ascii=False)
    headers = {"Cache-Control": "no-store"}
    return Response(text.encode(), media_type="application/json", headers=headers, background=background)


def _told(_: Request, error: Exception) -> Response:
    """A user's mistake, such as a line of a file that was edited by hand, as a message of the page."""
    return Response(json.dumps({"problem": str(error)}), status_code=500, media_type="application/json")


def _gone(_: Request, __: Exception) -> Response:
    """The browser died while it wrote: nobody reads this, and there is nothing to complain of."""
    return Response(status_code=400)


def _filter(request: Request, kind: type[F]) -> F:
    try:
        return kind.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise HTTPException(400, detail=error.errors()[0]["msg"]) from error


def _position(request: Request, count: int) -> int:
    position: int = request.path_params["position"]
    if position >= count:
        raise HTTPException(404)
    return position


def _positions(request: Request, count: int) -> list[int]:
    parts = request.query_params.get("at", "").split(",")
    if len(parts) > _MOST_ROWS or not all(part.isdecimal() and len(part) < 10 and int(part) < count for part in parts):
        raise HTTPException(400, detail=f"`at` is up to {_MOST_ROWS} positions below {count}, with commas")
    return [int(part) for part in parts]
