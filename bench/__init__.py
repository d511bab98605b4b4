"""Measurements of Taskwire beside other servers, and a checker of its promises under ``kill -9``. See README.md."""
