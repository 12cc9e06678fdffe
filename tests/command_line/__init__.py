"""Tests of the command line: its words, what they name, and what is done."""
