"""Stage `train`: one student from a reinforced dataset and resolved settings."""
