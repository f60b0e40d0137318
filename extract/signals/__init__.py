"""Signals over time in place of pictures: recordings, windows of them, and their features."""
