"""The worker with nothing between offset and commit: `python -m tests.bench.without_model`.

What is left is what Faust, aiokafka, the batching, the thread and the commits cost.
"""

import sys
from collections.abc import Sequence

from ecgwatch import batches, config, worker
from ecgwatch.batch import Outcome, Received, Rules
from ecgwatch.patients import Patients


def nothing(batch: Sequence[Received], rules: Rules, patients: Patients) -> Outcome:
    """Score no beat and publish nothing."""
    return Outcome([], len(batch), 0, 0, {})


if __name__ == "__main__":
    batches.process = nothing
    sys.exit(worker.run(config.load()))
