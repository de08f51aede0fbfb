"""The search loop, its rungs and strategies."""
