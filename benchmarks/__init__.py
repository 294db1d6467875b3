"""Speed and memory of Lethe beside their bars, measured on the real parts."""
