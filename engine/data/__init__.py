"""Data sets: manifests, the store of their images and graphs, and the published formats."""
