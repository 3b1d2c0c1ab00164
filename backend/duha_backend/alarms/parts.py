"""Alarms of the backend itself: parts that fail, documents that cannot be carried out."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from duha_backend.alarms.book import Book
from duha_backend.alarms.engine import News
from duha_backend.alarms.kinds import OF_PROCESS
from duha_backend.alarms.timers import Holds
from duha_backend.documents import SetAside
from duha_runtime.supervision import Failure

DETAIL_CHARS = 300


class _Office(Protocol):
    book: Book

    async def tell(self, news: Sequence[News]) -> None: ...


class Parts:
    """Raises an alarm for what fails in a process, and clears it.

    Parameters
    ----------
    office : Office
        Writes alarms down and tells of them.
    name : str
        Names the process in the alarms' objects, as in ``backend:link``.
    failing : callable
        Parts that fail now.
    set_aside : callable
        Stored documents that cannot be read.
    problems : callable
        What could not be done, by cabinet.
    """

    def __init__(
        self,
        office: _Office,
        name: str,
        failing: Callable[[], Iterable[Failure]],
        set_aside: Callable[[], Iterable[SetAside]],
        problems: Callable[[], Mapping[str, str]],
    ) -> None:
        self._office = office
        self._name = name
        self._failing = failing
        self._set_aside = set_aside
        self._problems = problems
        self._holds = Holds()
        self._adopted = False

    async def tick(self, now: int) -> None:
        """Look at a time [ms], and tell of what is new."""
        if not self._adopted:
            for code, name in await asyncio.to_thread(self._office.book.standing):
                if code in OF_PROCESS and name.startswith(f"{self._name}:"):
                    self._holds.adopt(code, name)
            self._adopted = True
        t = now / 1000
        found = self._found()
        for code, name in self._holds.known() | found.keys():
            detail = found.get((code, name))
            self._holds.see(code, name, detail is not None, t, detail or "")
        news = [
            News(code, name, "", began, now, held.detail)
            for code, name, began, held in self._holds.turned(t, lambda *_: False)
        ]
        if news:
            try:
                await self._office.tell(news)
            except BaseException:
                for one in news:  # told again when the registry takes it
                    self._holds.undo(one.code, one.object)
                raise

    def _found(self) -> dict[tuple[str, str], str]:
        found = {
            ("partFailed", f"{self._name}:{failure.part}"): failure.error
            for failure in self._failing()
        }
        for kind, name, reason in self._set_aside():
            found["documentFailed", f"{self._name}:{kind}:{name}"] = reason
        alike: dict[str, list[str]] = {}
        for cabinet, problem in self._problems().items():
            alike.setdefault(problem, []).append(cabinet)
        for problem, cabinets in alike.items():  # one cause is one alarm
            more = f"{len(cabinets)} cabinets: " if len(cabinets) > 1 else ""
            name = f"{self._name}:cabinet:{min(cabinets)}"
            found["documentFailed", name] = more + problem
        return {key: detail[:DETAIL_CHARS] for key, detail in found.items()}
