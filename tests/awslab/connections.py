"""A WebSocket API's callback URL, as API Gateway serves it: moto has none.

Source: API Gateway WebSocket API Reference, `POST @connections/{id}`, and botocore's model of
apigatewaymanagementapi 2018-11-29 (checked 2026-11): the body is the message as it is; 410 GoneException,
413 PayloadTooLargeException above 128 KB, 403 ForbiddenException, 429 LimitExceededException.
"""

from urllib.parse import unquote

from aiohttp import web

from tests.awslab.front import Fault

_LIMIT_BYTES = 131_072


def refusal(status: int, code: str) -> Fault:
    """Return an error as the API words it: the type in a header, the message in a JSON body."""
    return Fault(status, b'{"message": "no"}', {"x-amzn-ErrorType": code, "Content-Type": "application/json"})


class Connections:
    """The connections of one stage, `url`; what is posted to one that is open is kept."""

    def __init__(self) -> None:
        self.open: dict[str, list[bytes]] = {}
        self.posts = 0
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_post("/stage/@connections/{id:.+}", self._post)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        self.posts += 1
        body = await request.read()
        messages = self.open.get(unquote(request.match_info["id"]))
        if not request.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 "):
            fault = refusal(403, "ForbiddenException")
        elif messages is None:
            fault = refusal(410, "GoneException")
        elif len(body) > _LIMIT_BYTES:
            fault = refusal(413, "PayloadTooLargeException")
        else:
            messages.append(body)
            return web.Response(status=200)
        return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
