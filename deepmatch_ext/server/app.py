"""The web application: JSON in, recommendations out."""

# Annotations are not strings here, since FastAPI reads those of functions within a function.

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from deepmatch_ext._checks import missing_extra
from deepmatch_ext.server.metrics import Metrics
from deepmatch_ext.server.service import Service, TooManyWait, log

LARGEST_BODY = 2**20  # bytes
LONGEST_BODY = 10.0  # seconds until it has arrived


def make_app(service: Service, max_n: int = 1000) -> Any:
    """The web application of a service, for uvicorn or another ASGI server.

    ``POST /recommend`` takes ``{"user": {...}, "n": 10, "seen": [...], "among": [...]}``, of which only ``user`` is
    required, and answers ``{"ids": [...], "scores": [...], "version": 1}``. ``/health`` says which version is served,
    ``/metrics`` is for Prometheus, and ``/docs`` describes the requests.

    Args:
        service: The service that answers requests.
        max_n: The largest number of items that may be requested.

    Returns:
        A ``fastapi.FastAPI``.

    Raises:
        ImportError: FastAPI is not installed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext import YoutubeDNN
        >>> from deepmatch_ext.server import highest
        >>> from deepmatch_ext.serving import export_recommender
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 4, 8, embedding_name="item"), 5, "mean", "hist_len")
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = export_recommender(YoutubeDNN([history], [SparseFeat("item", 4, 8)]), folder)
        >>> app = make_app(Service(folder, highest(folder)), max_n=100)  # uvicorn.run(app, port=8501) serves it
        >>> sorted(app.openapi()["paths"])
        ['/health', '/metrics', '/recommend']
    """
    try:
        from fastapi import FastAPI, HTTPException, Request
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import JSONResponse, Response
        from pydantic import BaseModel, ConfigDict, Field, StrictInt
    except ModuleNotFoundError as error:
        raise missing_extra("A server", "fastapi", "serve") from error

    class Body(BaseModel):
        """What /recommend takes."""

        model_config = ConfigDict(extra="forbid")
        user: dict[str, Any] = Field(
            description="The user's features by name; a history is a list, the most recent first."
        )
        n: StrictInt = Field(10, ge=1, description="How many items to recommend.")
        seen: list[Any] = Field([], description="Ids of items that are left out.")
        among: list[Any] | None = Field(None, description="Ids of the items that may be recommended; null: all.")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.run()), asyncio.create_task(service.watch())]
        log.info("Version %s of %s is served", service.export.version, service.folder)
        yield
        for task in tasks:  # by now all requests are answered
            task.cancel()

    app = FastAPI(title="Recommendations", lifespan=lifespan)
    app.add_middleware(Guard, metrics=service.metrics, refusal=HTTPException)

    @app.post("/recommend")
    async def recommend(body: Body) -> Response:
        if body.n > max_n:
            raise HTTPException(422, f"n must be at most {max_n}; got {body.n}")
        export = service.export
        try:
            query = export.check(body.user, body.n, body.seen, body.among)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        try:
            return JSONResponse(await service.answer(export, query))
        except TooManyWait as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from None

    @app.get("/health")
    async def health() -> dict[str, Any]:
        failed = {version: failure.reason for version, failure in service.failures.items()}
        return {"status": "ok", "version": service.export.version, "items": service.export.items, "failed": failed}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.content_type)

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        if not request.headers.get("content-type", "").startswith("application/json"):
            return JSONResponse({"detail": "the content type must be application/json"}, 415)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return JSONResponse({"detail": f"the body must be JSON: {first['ctx']['error']}"}, 400)
        where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        return JSONResponse({"detail": f"{where}: {first['msg']}"}, 422)

    return app


class Guard:
    """Counts and times requests, and refuses bodies that are too large or take too long."""

    def __init__(self, app: Any, metrics: Metrics, refusal: Any) -> None:
        self._app, self._metrics, self._refusal = app, metrics, refusal

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, whole = time.perf_counter(), 500, False
        size = announced = int(dict(scope["headers"]).get(b"content-length", 0))

        async def counted_receive() -> Any:
            nonlocal size, whole
            if size <= LARGEST_BODY:
                left = None if whole else start + LONGEST_BODY - time.perf_counter()
                try:
                    message = await asyncio.wait_for(receive(), left)
                except asyncio.TimeoutError:
                    said = f"the body must arrive within {LONGEST_BODY:g} s"
                    raise self._refusal(408, said, {"Connection": "close"}) from None
                size = announced or size + len(message.get("body", b""))
                whole = not message.get("more_body", False)
            if size > LARGEST_BODY:
                raise self._refusal(413, f"the body must be at most {LARGEST_BODY} bytes")
            return message

        async def noted_send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, counted_receive, noted_send)
        finally:
            path = scope["path"] if scope["path"] in ("/recommend", "/health", "/metrics") else "other"
            self._metrics.requests.labels(path, status).inc()
            if path == "/recommend" and status == 200:
                self._metrics.seconds.observe(time.perf_counter() - start)
