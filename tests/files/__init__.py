"""Tests of files on disk, and files that earlier versions wrote."""
