"""The steps that turn encoded pairs into metrics, and on request into optimized images."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam

from transforms.descent.settings import Descent
from transforms.images.decode import DecodePolicy
from transforms.images.sandboxed import DECODE_TASK
from transforms.losses.devices import next_device
from transforms.losses.plan import Plan
from transforms.schema import EncodedChunk, ScoredChunk
from transforms.scoring.batch import Batching, batching_for
from transforms.scoring.model_cache import load_once
from transforms.scoring.optimize import load_optimizer, optimize_chunk
from transforms.scoring.score import StartedChunk, load_evaluator, score_chunk, start_chunk
from transforms.steps.overlap import OverlappingDoFn
from transforms.steps.step import Step
from transforms.storage.run_files import RunFiles
from transforms.storage.worker_files import worker_file
from transforms.worker.counters import count
from transforms.worker.sandbox import Sandbox
from transforms.worker.stopwatch import stopwatch


@dataclass(eq=False)
class ScorePairs(Step):
    """EncodedChunk -> ScoredChunk, by `score_chunk`.

    Attributes:
        plan: what to compute.
        policy: which images to admit, and how to convert them.
        batching: size of the batches; None: what suits the worker's device.
        sandbox: decodes the images.
        needs_gpu: whether a worker without a GPU is a mistake.
        output: the run's directory, in which the worker tells what it does; empty: it does not.
        fingerprint: of the run.
        claim: of its launcher.
    """

    plan: Plan
    policy: DecodePolicy = DecodePolicy()
    batching: Batching | None = None
    sandbox: Sandbox = Sandbox()
    needs_gpu: bool = False
    output: str = ""
    fingerprint: str = ""
    claim: str = ""

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        return chunks | "Score" >> beam.ParDo(_Work(self, load_evaluator, score_chunk))


@dataclass(eq=False, kw_only=True)
class OptimizePairs(ScorePairs):
    """EncodedChunk -> ScoredChunk with optimized images and the outcome for each pair, by `optimize_chunk`.

    The plan's objective is minimized; `batching` is also that of the descent's slots.

    Attributes:
        descent: how to descend, and when to stop.
    """

    descent: Descent

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        work = partial(optimize_chunk, descent=self.descent)
        return chunks | "Optimize" >> beam.ParDo(_Work(self, load_optimizer, work))


class _Work(OverlappingDoFn[EncodedChunk, StartedChunk]):
    """Scores or optimizes with a model that the worker loads once; meanwhile children decode the next chunk.

    The first one is read, and its first pairs are decoded, while the model is loaded.

    Args:
        step: its settings.
        load: makes the model of a plan.
        work: scores or optimizes a chunk with the model.
    """

    def __init__(self, step: ScorePairs, load: Callable[..., Any], work: Callable[..., ScoredChunk]):
        self.plan, self.needs_gpu = step.plan, step.needs_gpu
        self.policy, self.batching, self.sandbox = step.policy, step.batching, step.sandbox
        self.run = (RunFiles(step.output), step.fingerprint, step.claim) if step.output else None
        self.load, self.work = load, work
        self.model: Future[Any] | None = None

    def setup(self) -> None:
        self.sandbox.start(DECODE_TASK)
        self.device = next_device(self.needs_gpu)
        loader = ThreadPoolExecutor(1, "load_model")
        self.model = loader.submit(load_once, self.load, self.plan, self.device)
        loader.shutdown(wait=False)

    def begin(self, chunk: EncodedChunk) -> StartedChunk:
        batching = self.batching or batching_for(self.device.memory_bytes)
        return start_chunk(chunk, self.plan, self.policy, batching, self.sandbox)

    def abandon(self, started: StartedChunk) -> None:
        started.decoded.close()

    def teardown(self) -> None:
        super().teardown()
        # The import of TensorFlow silences standard error, on which the launcher may want to say why the job ended.
        wait([self.model] if self.model else [])

    def end(self, started: StartedChunk) -> Iterator[ScoredChunk]:
        chunk = started.encoded
        with closing(started.decoded):
            assert self.model, "Beam has set the step up"
            model = self.model.result()
            with stopwatch(chunk.chunk.name, "other") as watch:

                def done(pairs: int) -> None:
                    count("pairs_done", pairs)
                    watch.pairs += pairs
                    if self.run:
                        worker_file(*self.run).tell()

                scored = self.work(started, model, done)
        yield replace(scored, work=chunk.work + watch.work())
