"""Tests of what is answered."""
