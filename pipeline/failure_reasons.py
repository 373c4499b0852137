"""Why a record can fail, whatever step finds it."""

from transforms.images.decode import REASONS
from transforms.reading.read_chunks import READ_REASONS
from transforms.scoring.score import SCORE_REASONS
from transforms.worker.sandbox import SANDBOX_REASONS

# The meaning of each reason.
FAILURE_REASONS = READ_REASONS | REASONS | SANDBOX_REASONS | SCORE_REASONS
