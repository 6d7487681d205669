"""Trains a method on an experiment: relevance ranges, the loop, and what a run leaves behind."""
