"""Speed, as ratios of paired rounds in one run."""
