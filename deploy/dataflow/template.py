"""The entry point of the Flex Template: Dataflow's launcher runs this file with the parameters as flags."""

import sys

from pipeline.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
