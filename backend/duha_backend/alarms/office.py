"""Where alarms are looked for, written down and told: one for each process that leads."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from duha_backend.alarms.book import Book
from duha_backend.alarms.channels import Channel
from duha_backend.alarms.deliver import Deliveries, Mail
from duha_backend.alarms.engine import WATCHED, Barrier, Engine, News, no_barrier
from duha_backend.alarms.kinds import OF_PROCESS, OF_RAIN
from duha_backend.alarms.quiet import Quiet
from duha_backend.lighting.inventory import LuminaireType
from duha_backend.lighting.roads import Roads
from duha_backend.live import Live
from duha_backend.registry import Registry
from duha_contract.lighting import Sun
from duha_contract.messages import Desired


class Office:
    """Alarms of a city.

    Parameters
    ----------
    registry, live, roads, sun : Registry, Live, Roads, Sun
        What there is.
    desired : callable
        Gives the document of each controller.
    mail, city, real_s : Mail or None, str, callable
        As of `Deliveries`.
    barrier : callable, optional
        As of `Engine`.
    """

    def __init__(
        self,
        registry: Registry,
        live: Live,
        roads: Roads,
        sun: Sun,
        desired: Callable[[], Mapping[str, Desired]],
        mail: Mail | None,
        city: str,
        real_s: Callable[[], float],
        barrier: Barrier = no_barrier,
    ) -> None:
        self._registry = registry
        self._seen = -1
        self._types: dict[str, LuminaireType] = {}
        self._quiet: list[Quiet] = []
        self._leading = False
        self._live = live
        self._news: list[News] = []
        self.book = Book(registry.engine)
        self.deliveries = Deliveries(
            registry.engine, lambda: registry.all(Channel), mail, city, real_s
        )
        self._engine = Engine(
            live, roads, sun, lambda: self._types, desired, lambda: self._quiet,
            barrier,
        )  # fmt: skip

    async def tick(self, now: int, *, leading: bool) -> None:
        """Look for alarms at a time [ms], if this process leads."""
        if not leading:
            self._leading = False
            self._news = []  # whoever leads now finds them
            self._live.watch(())  # nobody here would ask for what is kept
            return
        await self._look()
        if not self._leading:  # a new leader goes on with what the last one has left
            self._live.watch(WATCHED)
            standing = await asyncio.to_thread(self.book.standing)
            self._engine.adopt(a for a in standing if self._is_of_city(*a))
            self._leading = True
        # What the registry cannot take now is kept until it can.
        self._news += self._engine.tick(now)
        if self._news:
            await asyncio.to_thread(self.book.take, self._news, self.deliveries.queue)
            self._news = []

    def _is_of_city(self, code: str, name: str) -> bool:
        """Whether an alarm is one that is looked for here."""
        if code in OF_PROCESS:
            return name in self._live.assets
        return code not in OF_RAIN

    async def tell(self, news: Sequence[News]) -> None:
        """Write down what others in this process have found, and tell of it."""
        await asyncio.to_thread(self.book.take, news, self.deliveries.queue)

    async def _look(self) -> None:
        """Types and quiet windows, when something has changed."""
        number = await asyncio.to_thread(self._registry.change, "documents")
        if number == self._seen:
            return
        found = await asyncio.to_thread(self._registry.all, LuminaireType)
        self._types = {kind.id: kind for kind in found}
        self._quiet = await asyncio.to_thread(self._registry.all, Quiet)
        self._engine.refresh()
        self._seen = number
