"""Who may ask the review server anything: the person who was told its address, from that address, and no other page.

Other web pages reach a server on loopback too. They are kept out by what a browser says of itself (`Host`, so that no
name of theirs leads here; `Origin` and `Sec-Fetch-Site`, so that no page of theirs asks), and by a cookie that only the
address with the token gives, which also keeps out other people of this machine.
"""

import hmac
import secrets

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK = ("127.0.0.1", "localhost")
_MAX_BODY_BYTES = 10_000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Access:
    """Lets requests through to `app`, or answers them with 403.

    Attributes:
        token: what the address of the first visit ends with, new at each start.
    """

    def __init__(self, app: ASGIApp, port: int):
        self._app = app
        self.token = secrets.token_urlsafe(24)
        self._cookie = f"tpo_review_{port}"  # browsers share cookies among ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        refusal = self._refusal(request)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                if refusal is None and self._has_token(request):
                    cookie = f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                    headers.append((b"set-cookie", cookie.encode()))
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        answer: ASGIApp = self._app if refusal is None else refusal
        await answer(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        if _host_name(headers) not in _LOOPBACK:
            return _no("this server is asked as 127.0.0.1 or localhost")
        if self._has_token(request):  # a click on the address, wherever it was shown
            return None
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _no("another page asks")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{headers['host']}":
            return _no("another page asks")
        if not self._same(request.cookies.get(self._cookie, "")):
            return _no("open the address that `tpo review` printed when it was started")
        if request.method not in ("GET", "HEAD"):
            return _refused_write(headers)
        return None

    def _has_token(self, request: Request) -> bool:
        given = request.query_params.get("token", "")
        return request.method == "GET" and request.url.path == "/" and self._same(given)

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def _refused_write(headers: Headers) -> Response | None:
    """Writes come from the page alone: browsers say so, and JSON is what a form on another page cannot send."""
    if headers.get("origin") is None:
        return _no("a write says which page it comes from (Origin)")
    if headers.get("content-type", "").split(";")[0] != "application/json":
        return _no("a write is application/json")
    length = headers.get("content-length", "")
    if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
        return _no(f"a write has a length, of at most {_MAX_BODY_BYTES} bytes")
    return None


def _host_name(headers: Headers) -> str:
    """A tunnel from another machine may come with another port."""
    return headers.get("host", "").rpartition(":")[0] or headers.get("host", "")


def _no(why: str) -> Response:
    return PlainTextResponse(f"Refused: {why}.\n", status_code=403)
