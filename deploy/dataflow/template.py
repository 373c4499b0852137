"""What the launcher of Dataflow's Flex Templates runs: it asks for a file, and gives the parameters as flags."""

import sys

from pipeline.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
