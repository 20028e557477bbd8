"""Many cases: read by several processes, encoded together, durable, resumable."""
