"""Tests a trained network: how right it is, where it looks, and by which units the background acts."""
