"""Requests as bytes, answers as arrays: everything of the API that needs no connection."""
