"""Estimates what a run on Dataflow's GPUs costs, from speeds and prices: `python -m benchmarks.cost`.

Nothing is measured here. Speeds are the estimates of docs/engines.md for `lpips_vgg` in float16 at 256x256, or decoding
on half as many cores as there are vCPUs, whichever is slower. Prices are parameters, in US dollars; their defaults are
about those of 2025 in us-central1, not looked up since. https://cloud.google.com/dataflow/pricing has today's.
"""

import argparse
import sys
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

# docs/engines.md, of noisy PNGs.
_DECODED_A_SECOND_AND_CORE = 315
# Requests to the store that a chunk makes; docs/scale.md names them.
_READS_A_CHUNK, _WRITES_A_CHUNK = 6, 1


@dataclass(frozen=True)
class Worker:
    """A worker with one GPU.

    Attributes:
        pairs: that the GPU scores in a second.
        gpu: dollars an hour for the GPU.
        cpus: number of vCPUs.
        memory: GB of memory.
    """

    pairs: float
    gpu: float
    cpus: int
    memory: int

    @property
    def speed(self) -> float:
        """Pairs a second, with decoding."""
        return min(self.pairs, _DECODED_A_SECOND_AND_CORE * self.cpus / 2)


WORKERS = {
    "T4, n1-standard-8": Worker(275, 0.35, 8, 30),
    "L4, g2-standard-8": Worker(590, 0.56, 8, 32),
    "A100, a2-highgpu-1g": Worker(1860, 2.93, 12, 85),
    "H100, a3-highgpu-1g": Worker(4900, 9.80, 26, 234),
}


def main() -> int:
    """Print the estimate for each kind of worker."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--pairs", type=float, default=1e9, help="to score (default: %(default)g)")
    parser.add_argument("--workers", type=int, default=100, help="at once (default: %(default)s)")
    parser.add_argument("--chunk_pairs", type=int, default=1024, help="(default: %(default)s)")
    parser.add_argument("--cpu_hour", type=float, default=0.056, help="dollars for a vCPU (default: %(default)s)")
    parser.add_argument(
        "--gb_hour", type=float, default=0.003557, help="dollars for a GB of memory (default: %(default)s)"
    )
    parser.add_argument("--reads", type=float, default=0.4, help="dollars for a million reads (default: %(default)s)")
    parser.add_argument("--writes", type=float, default=5, help="dollars for a million writes (default: %(default)s)")
    parser.add_argument("--gpu_hour", type=float, action="append", help="dollars for a GPU, one flag for each row")
    given = parser.parse_args()
    prices = given.gpu_hour or [worker.gpu for worker in WORKERS.values()]
    chunks = given.pairs / given.chunk_pairs
    requests = chunks * (_READS_A_CHUNK * given.reads + _WRITES_A_CHUNK * given.writes) / 1e6
    table = Table("worker", "pairs/s", "$/h", "worker hours", f"hours on {given.workers}", "$", "$ per million pairs")
    for (name, worker), gpu in zip(WORKERS.items(), prices, strict=True):
        hourly = gpu + given.cpu_hour * worker.cpus + given.gb_hour * worker.memory
        hours = given.pairs / worker.speed / 3600
        total = hours * hourly + requests
        table.add_row(
            *(name, f"{worker.speed:.0f}", f"{hourly:.2f}", f"{hours:.0f}", f"{hours / given.workers:.1f}"),
            *(f"{total:.0f}", f"{total / given.pairs * 1e6:.2f}"),
        )
    told = f"{given.pairs:g} pairs in {chunks:.0f} chunks, whose requests cost ${requests:.0f} of each total; estimates"
    Console(width=110).print(told, table, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
