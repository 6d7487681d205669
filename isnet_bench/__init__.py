"""The benchmark: data with a background bias, training, evaluation, and reports of what came out."""
