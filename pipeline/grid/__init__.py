"""Many trainings side by side: sweeps and the ablation tables of the paper."""
