"""Schemas of collections."""
