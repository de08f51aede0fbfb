"""Devices that were measured elsewhere: from a published table, or a user's own, to a profile with its error."""
