"""A worker whose model misbehaves as onnxruntime could: `python odd_worker.py fails|fails-late|hangs|slow`."""

import sys
import time

import numpy as np

from ecgwatch import config, worker
from ecgwatch.errors import EcgwatchError
from ecgwatch.logs import log
from ecgwatch.scorer import Scorer, Scores

BEGUN = "the batch has begun"  # what its log says then
LONG_BATCH_S = 20.0  # longer than a worker without partitions would wait for others that hang


class Odd(Scorer):
    """Scores like any other while it warms up, then misbehaves."""

    how = ""

    def score(self, x: np.ndarray) -> Scores:
        """Fail, hang, or take long."""
        if self.how:
            log.warning(BEGUN)
        if self.how == "fails":
            raise RuntimeError("a failure that nobody foresaw")
        if self.how == "fails-late":
            time.sleep(2)
            raise RuntimeError("a failure of Jane Roe's batch")
        if self.how == "hangs":
            time.sleep(3600)
        if self.how == "slow":
            time.sleep(LONG_BATCH_S)
        return super().score(x)


def make(*arguments: object) -> Scorer:
    """Make the scorer; it misbehaves from now on."""
    scorer = Odd(*arguments)  # type: ignore[arg-type]
    scorer.how = sys.argv[1]
    return scorer


if __name__ == "__main__":
    try:
        sys.exit(worker.run(config.load(), make))
    except EcgwatchError as error:
        print(f"ecgwatch: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
