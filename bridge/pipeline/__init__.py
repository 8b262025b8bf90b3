"""Decisions only: plain functions and small objects that are given the time and never wait."""
