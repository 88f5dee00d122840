"""Policies, pins, kills and revocations in Redis: how they are spelled, watched and committed."""
