"""Waiting requests, batches of them, and the change from one version of an export to the next."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmatch_ext.server.export import Query, ServedExport, versions
from deepmatch_ext.server.metrics import Metrics

LONGEST_WAIT = 60.0  # seconds until a version that can't be served is tried again
log = logging.getLogger("uvicorn.error")  # uvicorn's own, so that all lines look alike


class TooManyWait(Exception):
    """Too many requests are waiting. The application of `make_app` answers them with status 503.

    Example:
        >>> service = Service(Path("exports"), export=None, max_waiting=0)  # no request may wait
        >>> try:
        ...     asyncio.run(service.answer(None, Query({}, n=10)))
        ... except TooManyWait as error:
        ...     print(error)
        too many requests wait; try again later
    """


@dataclass(frozen=True)
class Failure:
    """Why a version can't be served, and when it is tried again."""

    reason: str
    wait: float
    again: float


class Service:
    """Answers queries in batches: those that arrive while one batch is computed form the next.

    A single request therefore does not wait, and batches grow with the load. `run` and `watch` must run concurrently
    for as long as the service answers queries, as they do in the application of `make_app`.

    Args:
        folder: The folder of the versions.
        export: The version that is served first, such as ``highest(folder)``.
        max_batch: The largest number of requests that are computed at once.
        max_waiting: The largest number of requests that may wait.
        poll_seconds: The time between two checks for another version.

    Attributes:
        export: The version that is served.
        failures: Why higher versions can't be served, by their numbers.
        metrics: The `Metrics`.

    Raises:
        ImportError: prometheus_client is not installed.

    Example:
        >>> import tempfile
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext import YoutubeDNN
        >>> from deepmatch_ext.server import highest
        >>> from deepmatch_ext.serving import export_recommender
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 4, 8, embedding_name="item"), 5, "mean", "hist_len")
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = export_recommender(YoutubeDNN([history], [SparseFeat("item", 4, 8)]), folder)
        >>> async def answers(service, users):
        ...     running = asyncio.create_task(service.run())
        ...     queries = [service.export.check(user, n=1, seen=user["hist_item"]) for user in users]
        ...     found = await asyncio.gather(*[service.answer(service.export, query) for query in queries])
        ...     running.cancel()
        ...     return [answer["ids"] for answer in found]
        >>> service = Service(folder, highest(folder))
        >>> asyncio.run(answers(service, [{"hist_item": [3, 1]}, {"hist_item": [2, 1]}]))
        [[2], [3]]
    """

    def __init__(
        self,
        folder: Path,
        export: ServedExport,
        max_batch: int = 64,
        max_waiting: int = 1024,
        poll_seconds: float = 1.0,
    ) -> None:
        self.folder, self.export = folder, export
        self.failures: dict[int, Failure] = {}  # of versions above the one that is served
        self.metrics = Metrics(self)
        self._max_batch, self._max_waiting, self._poll_seconds = max_batch, max_waiting, poll_seconds
        self._waiting: asyncio.Queue[tuple[ServedExport, Query, asyncio.Future[Any]]] = asyncio.Queue()
        self._computing = ThreadPoolExecutor(1, "compute")

    @property
    def waiting(self) -> int:
        """How many requests wait for a batch."""
        return self._waiting.qsize()

    async def answer(self, export: ServedExport, query: Query) -> dict[str, Any]:
        """The answer of an export to a query.

        Args:
            export: The version that checked the query.
            query: What `ServedExport.check` returned.

        Returns:
            ``ids`` and ``scores``, lists of the n best items or of those that are left, and the export's ``version``.

        Raises:
            TooManyWait: `max_waiting` requests are waiting already.
        """
        if self.waiting >= self._max_waiting:
            raise TooManyWait("too many requests wait; try again later")
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((export, query, answer))
        return await answer

    async def run(self) -> None:
        """Computes requests in the order in which they arrive, until it is cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._max_batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            for _, same in itertools.groupby(batch, key=lambda entry: id(entry[0])):
                await self._compute(list(same))

    async def _compute(self, batch: list[tuple[ServedExport, Query, asyncio.Future[Any]]]) -> None:
        export = batch[0][0]
        self.metrics.batch_size.observe(len(batch))
        try:
            queries = [query for _, query, _ in batch]
            answers: list[Any] = await asyncio.get_running_loop().run_in_executor(
                self._computing, export.recommend, queries
            )
        except Exception as error:
            if len(batch) > 1:  # one of them caused it; the others still get their answers
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
        """Switches to the highest version that can be served, whenever there is a new one, until it is cancelled."""
        while True:
            with contextlib.suppress(OSError):  # no folder: what is loaded stays
                await self._change_over(versions(self.folder))
            await asyncio.sleep(self._poll_seconds)

    async def _change_over(self, paths: Sequence[Path]) -> None:
        """Serves the first version that can be served. Others are tried again, each time after a longer wait."""
        for path in paths:
            version = int(path.name)
            before = self.failures.get(version)
            if version == self.export.version:
                break
            if before and time.monotonic() < before.again:
                continue
            try:
                export = await asyncio.to_thread(ServedExport, path)
            except ValueError as error:
                if not before or before.reason != str(error):
                    log.error("Version %s stays: %s", self.export.version, error)
                self.metrics.loads.labels("failed").inc()
                wait = min(2 * before.wait, LONGEST_WAIT) if before else self._poll_seconds
                self.failures[version] = Failure(str(error), wait, time.monotonic() + wait)
                continue
            log.info("Version %s is served instead of version %s", export.version, self.export.version)
            self.metrics.loads.labels("served").inc()
            self.export = export
            break
        there = {int(path.name) for path in paths if int(path.name) > self.export.version}
        self.failures = {version: failure for version, failure in self.failures.items() if version in there}
