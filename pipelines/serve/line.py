"""Requests that wait in line for one thread: so many and no more, none forever."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


class Busy(Exception):
    """The line is full, or the turn did not come in time: ask again later."""


class Line:
    """One thread for the networks, which take all cores anyway, and who waits for it.

    most: places in the line; at_once: of these whose pictures are held; seconds: that a request
    waits, for its place among those and for its job.
    """

    def __init__(self, name: str, most: int, at_once: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self.waiting = 0
        self._held = asyncio.Semaphore(at_once)
        self._thread = ThreadPoolExecutor(1, name)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among those whose pictures are held. Raises Busy."""
        if self.waiting >= self.most:
            raise Busy
        self.waiting += 1
        try:
            try:
                async with asyncio.timeout(self.seconds):
                    await self._held.acquire()
            except TimeoutError:
                raise Busy from None
            try:
                yield
            finally:
                self._held.release()
        finally:
            self.waiting -= 1

    async def run(self, job: Callable[[], T]) -> T:
        """What the job gives, in its turn. Raises Busy; a job that has begun goes on then, and one
        that has not is dropped, as it is where nobody waits for it any more."""
        try:
            async with asyncio.timeout(self.seconds):
                return await asyncio.wrap_future(self._thread.submit(job))
        except TimeoutError:
            raise Busy from None

    def close(self) -> None:
        """Drops what waits, and ends with the job that has begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)
