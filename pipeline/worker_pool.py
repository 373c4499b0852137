"""Beam's worker pool for several jobs at once: `python -m pipeline.worker_pool --service_port=50000`.

Flink numbers the workers of every job from 1-1 on, and Beam's pool knows them by that number alone: told to stop that
of a job that ended, it stops the one of the same number that was started last, perhaps of a job in full swing, such as
the resumed one of a killed launcher. That job then waits for its worker without end.
"""

import argparse

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer


class WorkerPool(BeamFnExternalWorkerPoolServicer):
    """Starts workers, and lets them end by themselves, as they do when the TaskManager leaves them."""

    def StopWorker(  # noqa: N802 (gRPC's name)
        self, stop_worker_request: beam_fn_api_pb2.StopWorkerRequest, unused_context: object
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        return beam_fn_api_pb2.StopWorkerResponse()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(
        description="Start a worker process for each Beam job that asks; in place of Beam's own worker_pool_main.",
    )
    parser.add_argument("--service_port", type=int, required=True, metavar="PORT", help="where Flink asks for workers")
    parser.add_argument("--container_executable", metavar="PATH", help="what starts a worker: Beam's boot, in an image")
    arguments = parser.parse_args()
    address, server = WorkerPool.start(
        use_process=True, port=arguments.service_port, container_executable=arguments.container_executable
    )
    print(f"listening at {address}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
