"""Loaded by each worker of the tests' cluster: an encoder without a network, and not a fast one."""

import time

from batches import SmallEncoder

from oncofm.workflow.batch import cluster_worker as worker


class Slow(SmallEncoder):
    def encode(self, patches):
        time.sleep(0.2)
        return super().encode(patches)


worker.start_loading = lambda *_: Slow
