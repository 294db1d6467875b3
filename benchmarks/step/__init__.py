"""One step of MultiDelete: the engine's beside a plain loop, and how jobs grow with their data."""
