"""Elements of a step that overlap: the next one begins before the last one ends, and none is lost."""

from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import TaggedOutput
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from transforms.steps.overlap import OverlappingDoFn


class Recorder(OverlappingDoFn[int, str]):
    """Yields each element for both of its outputs, and records the calls."""

    def __init__(self, most: int = 1) -> None:
        self.told: list[str] = []
        self.most = most

    def begin(self, element: int) -> str:
        self.told.append(f"begin {element}")
        return str(element)

    def end(self, started: str):
        self.told.append(f"end {started}")
        if started == "13":
            raise ValueError(started)
        yield started
        yield TaggedOutput("again", started)

    def abandon(self, started: str) -> None:
        self.told.append(f"abandon {started}")


def bundle(step: Recorder, elements: list[int]) -> list[str]:
    step.start_bundle()
    found = [result for element in elements for result in step.process(element)]
    return [*map(plain, found), *(plain(output).value for output in step.finish_bundle())]


def plain(output: Any) -> Any:
    return output.value if isinstance(output, TaggedOutput) else output


@pytest.mark.parametrize("elements", [[], [1], [1, 2, 3]])
def test_each_begins_before_the_one_before_ends(elements):
    step = Recorder()
    assert bundle(step, elements) == [str(element) for element in elements for _ in range(2)]
    begun = [f"begin {element}" for element in elements]
    ended = [f"end {element}" for element in elements]
    overlapped = [told for pair in zip(begun[1:], ended[:-1], strict=True) for told in pair]
    assert step.told == [*begun[:1], *overlapped, *ended[-1:]]


def test_more_than_one_may_be_in_the_making():
    step = Recorder(most=2)
    assert bundle(step, [1, 2, 3]) == ["1", "1", "2", "2", "3", "3"]
    assert step.told == ["begin 1", "begin 2", "begin 3", "end 1", "end 2", "end 3"]


def test_a_new_bundle_forgets_what_a_broken_one_had_begun():
    step = Recorder()
    with pytest.raises(ValueError, match="13"):
        bundle(step, [13, 1, 2])
    assert bundle(step, [3]) == ["3", "3"]
    assert step.told == ["begin 13", "begin 1", "end 13", "abandon 1", "begin 3", "end 3"]
    step.teardown()
    assert step.told[-1] == "end 3"


def test_no_element_is_lost_in_a_pipeline():
    with beam.Pipeline(FnApiRunner(), PipelineOptions([])) as pipeline:
        found = pipeline | beam.Create(range(10)) | beam.ParDo(Recorder()).with_outputs("again", main="once")
        for output in ("once", "again"):
            assert_that(found[output], equal_to(list(map(str, range(10)))), output)
