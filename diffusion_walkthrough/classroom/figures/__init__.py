"""The pictures of each chapter, one module per chapter, of the same name: pure functions."""
