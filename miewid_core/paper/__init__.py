"""One file per experiment of the paper: its trainings, its table, its figure, its sentence."""
