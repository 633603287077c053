"""Trainings as values, one folder each: side by side, on a cluster, on several GPUs."""
