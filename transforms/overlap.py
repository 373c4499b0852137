"""A Beam step that begins the work on elements while those before are still in the making."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindows

Element = TypeVar("Element")
Started = TypeVar("Started")


class OverlappingDoFn(beam.DoFn, ABC, Generic[Element, Started]):
    """Begins an element's work when it arrives, and ends it when `most` more have begun, or with the bundle.

    So the threads and children that work for an element do not wait for the end of the one before.
    """

    most = 1

    # Beam copies a step before it works.
    _started: deque[Started] | None = None

    @abstractmethod
    def begin(self, element: Element) -> Started:
        """Begin in the background, and return at once."""

    @abstractmethod
    def end(self, started: Started) -> Iterator[Any]:
        """Yield what comes of it."""

    def abandon(self, started: Started) -> None:
        """Stop what was begun: nobody asks for it any more."""

    def start_bundle(self) -> None:
        """Forget what a bundle that failed had begun: it is tried again from its beginning."""
        self._abandon_all()
        self._started = deque()

    def process(self, element: Element) -> Iterator[Any]:
        """Begin the element, and end the oldest one."""
        assert self._started is not None, "Beam has started the bundle"
        self._started.append(self.begin(element))
        if len(self._started) > self.most:
            yield from self.end(self._started.popleft())

    def finish_bundle(self) -> Iterator[Any]:
        """End those that are left."""
        while self._started:
            for output in self.end(self._started.popleft()):
                if isinstance(output, TaggedOutput):
                    yield TaggedOutput(output.tag, GlobalWindows.windowed_value(output.value))
                else:
                    yield GlobalWindows.windowed_value(output)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self._abandon_all()

    def _abandon_all(self) -> None:
        while self._started:
            self.abandon(self._started.popleft())
