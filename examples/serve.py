"""Serves what `deepmatch_ext.serving.export_recommender` wrote, over HTTP: JSON in, recommendations out.

    pip install tensorflow fastapi uvicorn prometheus_client
    python examples/serve.py exports/recommender --port 8000

    curl --json '{"user": {"hist_item_id": [5, 4, 3]}, "n": 10, "seen": [5, 4, 3]}' localhost:8000/recommend

The folder's highest version is served. When a higher one appears, or the highest is taken away, the server changes over
without a pause: requests that have come by then are answered from the version that they were checked against. While a
version can't be served, such as one that is still being copied, the next lower one is; the other is tried again, and
/health says why. SIGTERM ends the server when the requests under way are answered. It needs neither deepmatch_ext nor
DeepCTR.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import logging
import os
import reprlib
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import prometheus_client
import tensorflow as tf
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt

log = logging.getLogger("uvicorn.error")  # uvicorn's own, so that all lines look alike

FORMAT = 1  # of the manifest
LARGEST_BODY = 2**20  # bytes
LONGEST_BODY = 10.0  # seconds until it has come
LONGEST_WAIT = 60.0  # seconds until a version that can't be served is tried again


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server until a signal ends it; returns the exit status: 0, or 2 for an export that can't be served."""
    args = parse_arguments(argv)
    try:
        export = highest(args.folder)
    except (OSError, ValueError) as error:
        print(f"serve.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    service = Service(args.folder, export, args.max_batch, args.max_waiting, args.poll_seconds)
    uvicorn.run(
        make_app(service, args.max_n),
        host=args.host,
        port=args.port,
        access_log=False,
        timeout_graceful_shutdown=args.grace_seconds,
    )
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""

    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
        return int(text)

    parser = argparse.ArgumentParser(prog="serve.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="the folder with the exported versions")
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (default: %(default)s)")
    parser.add_argument(
        "--max-n", type=whole, default=1000, help="the most that may be asked for (default: %(default)s)"
    )
    parser.add_argument("--max-batch", type=whole, default=64, help="users computed at once (default: %(default)s)")
    parser.add_argument(
        "--max-waiting", type=whole, default=1024, help="requests that may wait; more get 503 (default: %(default)s)"
    )
    parser.add_argument(
        "--poll-seconds", type=float, default=1.0, help="between looks for a new version (default: %(default)s)"
    )
    parser.add_argument(
        "--grace-seconds", type=whole, default=30, help="that requests under way have at the end (default: %(default)s)"
    )
    return parser.parse_args(argv)


# The export: what is loaded, what it takes, and what it gives.


def versions(folder: Path) -> list[Path]:
    """The exported versions, the highest first."""
    return sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: -int(path.name))


def highest(folder: Path) -> Export:
    """The highest version that can be served."""
    errors = [ValueError(f"{folder} has no exported version, a folder with a number for its name")]
    for path in versions(folder):
        try:
            return Export(path)
        except ValueError as error:
            errors.insert(-1, error)
    raise errors[0]


@dataclass(frozen=True)
class Query:
    """A request that was checked: arrays of one row, as the export takes them."""

    user: Mapping[str, Any]
    n: int
    seen: Sequence[Any]


class Export:
    """One version, loaded.

    Raises:
        ValueError: It can't be served.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._load(path)
        except Exception as error:  # TensorFlow's are of many kinds
            raise ValueError(f"{path} can't be served: {' '.join(str(error).split())}") from error

    def _load(self, path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format must be {FORMAT}; got {manifest['format']}")
        for name, size in manifest["files"].items():  # TensorFlow takes half a vocabulary for a whole one
            if (path / name).stat().st_size != size:
                raise ValueError(f"{name} must have {size} bytes; got {(path / name).stat().st_size}")
        self.version, self.items, self.inputs = int(path.name), manifest["items"], by_name(manifest["inputs"])
        self._ids_are_text, self._no_item = manifest["item_ids"] == "string", manifest["no_item"]
        self._loaded = tf.saved_model.load(str(path))  # kept, for the signatures alone don't keep its variables
        self._recommend = self._loaded.signatures["recommend_unseen"]
        for rows in (1, 2):  # the first call of each is slow, and shows whether anything is missing
            self.recommend([Query({name: blank(about) for name, about in self.inputs.items()}, 1, [])] * rows)

    def check(self, user: Mapping[str, Any], n: int, seen: Sequence[Any]) -> Query:
        """The request as the export takes it.

        Raises:
            ValueError: It can't be; the message says what is wrong, for whoever sent it.
        """
        if n > self.items:
            raise ValueError(f"n must be at most {self.items}, the number of items; got {n}")
        for item in seen:
            checked_text("seen", item) if self._ids_are_text else checked_int("seen", item, -(2**63), 2**63 - 1)
        readable = [name for name, about in self.inputs.items() if about["kind"] != "length"]
        for name in user:
            if name not in readable:
                why = ", which is counted here" if name in self.inputs else f"; the export reads {readable}"
                raise ValueError(f"user must not have {name!r}{why}")
        for name in readable:
            if name not in user:
                raise ValueError(f"user must have {name!r}")
        row: dict[str, Any] = {}
        lengths: dict[str, tuple[str, int]] = {}  # name of a length -> the history that it is of, and how many
        for name in readable:
            about, value = self.inputs[name], user[name]
            if about["kind"] == "id":
                row[name] = [checked_id(name, about, value)]
            elif about["kind"] == "history":
                room = about["shape"][0]
                ids = [checked_id(name, about, item) for item in checked_list(name, value)[:room]]
                row[name] = ids + [about["padding"]] * (room - len(ids))
                if (length := about["length"]) is not None:
                    first, expected = lengths.setdefault(length, (name, len(value)))
                    if len(value) != expected:
                        raise ValueError(f"{name} must be as long as {first}, {expected}; got {len(value)}")
                    row[length] = [min([len(ids), *row.get(length, [])])]
                if (weights := about["weights"]) is not None:
                    if weights not in user or len(checked_list(weights, user[weights])) != len(value):
                        raise ValueError(f"user must have {weights!r}, as long as {name}, {len(value)}")
                    numbers = [checked_number(weights, self.inputs[weights], number) for number in user[weights][:room]]
                    row[weights] = [[number] for number in numbers + [0.0] * (room - len(numbers))]
            elif about["kind"] == "numbers":
                numbers = value if isinstance(value, list) else [value]
                if len(numbers) != about["shape"][0]:
                    raise ValueError(f"{name} must hold {about['shape'][0]} numbers; got {len(numbers)}")
                row[name] = [checked_number(name, about, number) for number in numbers]
        return Query(row, n, seen)

    def recommend(self, queries: Sequence[Query]) -> list[dict[str, Any]]:
        """The answers to some queries, computed together."""
        arrays = {}
        for name, about in self.inputs.items():
            rows = [query.user[name] for query in queries]
            arrays[about["argument"]] = tf.constant(
                rows if about["dtype"] == "string" else np.array(rows, about["dtype"])
            )
        longest = max(len(query.seen) for query in queries)
        seen = [[*query.seen, *[self._no_item] * (longest - len(query.seen))] for query in queries]
        arrays["seen"] = tf.constant(seen, tf.string if self._ids_are_text else tf.int64)
        found = self._recommend(**arrays, n=tf.constant(max(query.n for query in queries)))
        ids, scores = found["item_ids"].numpy(), found["scores"].numpy()
        left = np.isfinite(scores).sum(axis=1)
        answers = []
        for row, query in enumerate(queries):
            n = min(query.n, int(left[row]))
            own = ids[row, :n].tolist()
            answers.append(
                {
                    "ids": [item.decode() for item in own] if self._ids_are_text else own,
                    "scores": scores[row, :n].tolist(),
                    "version": self.version,
                }
            )
        return answers


def by_name(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's inputs by the model's names of them, in place of the signatures' arguments."""
    names = {argument: about["name"] for argument, about in inputs.items()}
    return {
        names[argument]: {
            **about,
            "argument": argument,
            **{part: names.get(about[part]) for part in ("length", "weights") if part in about},
        }
        for argument, about in inputs.items()
    }


def blank(about: Mapping[str, Any]) -> Any:
    """A row of an input in which nothing is known."""
    return np.full(about["shape"], about.get("padding", "" if about["dtype"] == "string" else 0), object).tolist()


def checked_id(name: str, about: Mapping[str, Any], value: Any) -> Any:
    """``value`` if the input can take it."""
    if about["dtype"] == "string":
        return checked_text(name, value)
    if "vocabulary_size" in about:
        return checked_int(name, value, 0, about["vocabulary_size"] - 1)
    limits = tf.as_dtype(about["dtype"])  # hashed, or looked up in a map: any number of the type
    return checked_int(name, value, limits.min, limits.max)


def checked_text(name: str, value: Any) -> str:
    """``value`` if it is text that can be encoded, which JSON's half surrogates can't."""
    if type(value) is not str or value.encode(errors="ignore").decode() != value:
        raise ValueError(f"{name} must hold strings; got {reprlib.repr(value)}")
    return value


def checked_int(name: str, value: Any, low: int, high: int) -> int:
    """``value`` if it is an integer in low..high."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must hold integers from {low} to {high}; got {reprlib.repr(value)}")
    return value


def checked_number(name: str, about: Mapping[str, Any], value: Any) -> float:
    """``value`` if it is a number that the input's type holds."""
    limits = tf.as_dtype(about["dtype"])
    if limits.is_integer:
        return checked_int(name, value, limits.min, limits.max)
    if type(value) not in (int, float) or not abs(value) <= float(limits.max):  # NaN is not
        raise ValueError(f"{name} must hold numbers that {about['dtype']} holds; got {reprlib.repr(value)}")
    return value


def checked_list(name: str, value: Any) -> list[Any]:
    """``value`` if it is a list."""
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list; got {reprlib.repr(value)}")
    return value


# The service: requests that wait, batches of them, and the change from one version to the next.


@dataclass(frozen=True)
class Failure:
    """Why a version can't be served, and when it is tried again, having waited."""

    reason: str
    wait: float
    again: float


class Service:
    """Answers queries in batches: whatever has come while the last batch was computed is computed next.

    So a request alone waits for nothing, and the busier it gets, the larger the batches.
    """

    def __init__(self, folder: Path, export: Export, max_batch: int, max_waiting: int, poll_seconds: float) -> None:
        self.folder, self.export = folder, export
        self.failures: dict[int, Failure] = {}  # of versions above the one that is served
        self.metrics = Metrics(self)
        self._max_batch, self._max_waiting, self._poll_seconds = max_batch, max_waiting, poll_seconds
        self._waiting: asyncio.Queue[tuple[Export, Query, asyncio.Future[Any]]] = asyncio.Queue()
        self._computing = ThreadPoolExecutor(1, "compute")

    @property
    def waiting(self) -> int:
        """How many requests wait for a batch."""
        return self._waiting.qsize()

    async def answer(self, export: Export, query: Query) -> dict[str, Any]:
        """The answer of ``export`` to ``query``."""
        if self.waiting >= self._max_waiting:
            raise HTTPException(503, "too many requests wait; try again later", {"Retry-After": "1"})
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((export, query, answer))
        return await answer

    async def run(self) -> None:
        """Takes requests in the order in which they come, for ever."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._max_batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            for _, same in itertools.groupby(batch, key=lambda entry: id(entry[0])):
                await self._compute(list(same))

    async def _compute(self, batch: list[tuple[Export, Query, asyncio.Future[Any]]]) -> None:
        export = batch[0][0]
        self.metrics.batch_size.observe(len(batch))
        try:
            queries = [query for _, query, _ in batch]
            answers = await asyncio.get_running_loop().run_in_executor(self._computing, export.recommend, queries)
        except Exception as error:
            if len(batch) > 1:  # one of them is to blame, the others get their answers
                for entry in batch:
                    await self._compute([entry])
                return
            log.exception("A request could not be answered")
            answers = [error]
        for (_, _, future), answer in zip(batch, answers, strict=True):
            if future.done():  # whoever asked is gone
                continue
            future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)

    async def watch(self) -> None:
        """Changes over to the highest version that can be served whenever that is another one, for ever."""
        while True:
            with contextlib.suppress(OSError):  # no folder: what is loaded stays
                await self._change_over(versions(self.folder))
            await asyncio.sleep(self._poll_seconds)

    async def _change_over(self, paths: Sequence[Path]) -> None:
        """Serves the first version that can be. One that can't is tried again, each time after a longer wait."""
        for path in paths:
            version = int(path.name)
            before = self.failures.get(version)
            if version == self.export.version:
                break
            if before and time.monotonic() < before.again:
                continue
            try:
                export = await asyncio.to_thread(Export, path)
            except ValueError as error:
                if not before or before.reason != str(error):
                    log.error("Version %s stays: %s", self.export.version, error)
                self.metrics.loads.labels("failed").inc()
                wait = min(2 * before.wait, LONGEST_WAIT) if before else self._poll_seconds
                self.failures[version] = Failure(str(error), wait, time.monotonic() + wait)
                continue
            log.info("Version %s is served in the place of version %s", export.version, self.export.version)
            self.metrics.loads.labels("served").inc()
            self.export = export
            break
        there = {int(path.name) for path in paths if int(path.name) > self.export.version}
        self.failures = {version: failure for version, failure in self.failures.items() if version in there}


class Metrics:
    """What /metrics tells."""

    def __init__(self, service: Service) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        made = {"registry": self.registry}
        self.requests = prometheus_client.Counter(
            "recommend_requests", "Requests by path and status", ["path", "status"], **made
        )
        buckets = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
        self.seconds = prometheus_client.Histogram(
            "recommend_seconds", "From a request for recommendations to its answer", buckets=buckets, **made
        )
        sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.batch_size = prometheus_client.Histogram(
            "recommend_batch_size", "Requests computed together", buckets=sizes, **made
        )
        self.loads = prometheus_client.Counter(
            "recommend_loads", "Loads of new versions by what came of them", ["result"], **made
        )
        version = prometheus_client.Gauge("recommend_version", "The version that is served", **made)
        version.set_function(lambda: service.export.version)
        waiting = prometheus_client.Gauge("recommend_waiting", "Requests that wait for a batch", **made)
        waiting.set_function(lambda: service.waiting)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return prometheus_client.generate_latest(self.registry)


# The way in.


class Body(BaseModel):
    """What /recommend takes."""

    model_config = ConfigDict(extra="forbid")
    user: dict[str, Any] = Field(description="The user's features by name; a history is a list, the most recent first.")
    n: StrictInt = Field(10, ge=1, description="How many items to recommend.")
    seen: list[Any] = Field([], description="Ids of items that are left out.")


def make_app(service: Service, max_n: int) -> FastAPI:
    """The web application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.run()), asyncio.create_task(service.watch())]
        log.info("Version %s of %s is served", service.export.version, service.folder)
        yield
        for task in tasks:  # by now all requests are answered
            task.cancel()

    app = FastAPI(title="Recommendations", lifespan=lifespan)
    app.add_middleware(Guard, metrics=service.metrics)

    @app.post("/recommend")
    async def recommend(body: Body) -> Response:
        if body.n > max_n:
            raise HTTPException(422, f"n must be at most {max_n}; got {body.n}")
        export = service.export
        try:
            query = export.check(body.user, body.n, body.seen)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return JSONResponse(await service.answer(export, query))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        failed = {version: failure.reason for version, failure in service.failures.items()}
        return {"status": "ok", "version": service.export.version, "items": service.export.items, "failed": failed}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=prometheus_client.CONTENT_TYPE_LATEST)

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

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

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
                    said = f"the body must come within {LONGEST_BODY:g} s"
                    raise HTTPException(408, said, {"Connection": "close"}) from None
                size = announced or size + len(message.get("body", b""))
                whole = not message.get("more_body", False)
            if size > LARGEST_BODY:
                raise HTTPException(413, f"the body must be at most {LARGEST_BODY} bytes")
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


if __name__ == "__main__":
    sys.exit(main())
