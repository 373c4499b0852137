"""Beam's worker pool for several jobs at once: `python -m pipeline.worker_pool --service_port=50000`.

Flink numbers the workers of every job from 1-1 on, and Beam's pool knows a worker by that number alone. When a job
ends and Flink stops its worker, Beam's pool stops the worker of that number that was started last. That may belong to
another job, such as the resumed job of a killed launcher, which then waits for its worker for ever.
"""

import argparse

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer


class WorkerPool(BeamFnExternalWorkerPoolServicer):
    """Starts workers and stops none: a worker ends by itself when its TaskManager closes the connection."""

    def StopWorker(  # noqa: N802 (gRPC's name)
        self, stop_worker_request: beam_fn_api_pb2.StopWorkerRequest, unused_context: object
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        return beam_fn_api_pb2.StopWorkerResponse()


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(
        description="Start a worker process for each Beam job that asks. It replaces Beam's own worker_pool_main."
    )
    parser.add_argument(
        "--service_port", type=int, required=True, metavar="PORT", help="port at which Flink asks for workers"
    )
    parser.add_argument(
        "--container_executable", metavar="PATH", help="program that starts a worker, such as Beam's boot in an image"
    )
    arguments = parser.parse_args()
    address, server = WorkerPool.start(
        use_process=True, port=arguments.service_port, container_executable=arguments.container_executable
    )
    print(f"listening at {address}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
