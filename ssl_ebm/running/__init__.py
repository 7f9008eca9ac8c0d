"""A training with all that goes around a Trainer: settings and what they may name, the run's folder, its lock
and record, what is said when something fails."""
