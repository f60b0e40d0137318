"""Many fits on one cache: sweeps, studies by Optuna, the papers' tables."""
