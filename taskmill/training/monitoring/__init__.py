"""What a training says of itself: metrics, progress, trackers, throughput and validation losses."""
