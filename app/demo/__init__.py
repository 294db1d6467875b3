"""``lethe demo``: an outside caller of the service, on real data, from start to certificate."""
