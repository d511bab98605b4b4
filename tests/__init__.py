"""The tests of Taskwire; the folders mirror those of the package."""
