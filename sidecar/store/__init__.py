"""Policies, pins and kills in Redis: how they are spelled, watched and committed."""
