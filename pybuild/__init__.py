"""pybuild as a library."""
