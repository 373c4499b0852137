"""A Beam step that begins the work on an element while the one before is still in the making."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

Element = TypeVar("Element")
Started = TypeVar("Started")


class OverlappingDoFn(beam.DoFn, ABC, Generic[Element, Started]):
    """Begins an element's work when it arrives, and ends it when the next one has begun, or with the bundle.

    So the threads and children that work for an element do not wait for the end of the one before.
    """

    _started: Started | None = None

    @abstractmethod
    def begin(self, element: Element) -> Started:
        """Begin in the background, and return at once."""

    @abstractmethod
    def end(self, started: Started) -> Iterator[Any]:
        """Yield what comes of it."""

    @abstractmethod
    def abandon(self, started: Started) -> None:
        """Stop what was begun: nobody asks for it any more."""

    def process(self, element: Element) -> Iterator[Any]:
        """Begin the element, and end the one before."""
        before, self._started = self._started, self.begin(element)
        if before is not None:
            yield from self.end(before)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """End the last one."""
        last, self._started = self._started, None
        if last is not None:
            yield from map(GlobalWindows.windowed_value, self.end(last))

    def start_bundle(self) -> None:
        """Forget what a bundle that failed had begun: it is tried again from its beginning."""
        self.teardown()

    def teardown(self) -> None:
        """Leave nothing behind."""
        if self._started is not None:
            self.abandon(self._started)
        self._started = None
